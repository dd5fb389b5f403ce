"""Rounds that wait for nobody: each closes when so many updates have come (strategy FedBuff).

A site has one task to train at a time. Who still trains when a round closes goes on with the weights that it
has, and its update is folded into the round that is open when it comes. Whom which round's weights are sent
is in the run database before they are, and the weights of every round are in the registry: the next process
of the run asks the same again, and sites answer from what they kept. Which updates a round has depends on who
is fast: a run that is done again, or that a fault has held up, ends with another model.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fedai.checkpoint import load_checkpoint
from fedai.errors import OutOfTime
from fedai.strategies import Conditions
from fedai.strategies.fedbuff import FedBuff
from fedai.weights import Weights
from fedai.wire import Reply
from fedai_server.rounds import Open, Patience, refusals_of, same_task, told_of
from fedai_server.runs import RunDatabase
from fedai_server.training import finish_round, tell_state, training_facts

if TYPE_CHECKING:
    from fedai_server.server_app import Conduct

SENT = "weights_sent"

log = logging.getLogger("fedai.server.run")


def close_round(run: Conduct, number: int) -> None:
    """One round, of `strategy.buffer` updates, or of those that have come at the deadline.

    Raises OutOfTime below the quorum.
    """
    rule, rules = run.strategy, run.study.rounds
    assert isinstance(rule, FedBuff)
    updates = rule.gather(
        Conditions(run.layout, run.study.training.optimizer, len(run.trainers), run.registry)
    )
    told: dict[str, dict[str, Any]] = {}

    def fold(site: str, reply: Reply) -> None:
        facts, staleness = training_facts(reply), number - reply.round
        update = Weights.of(dict(reply.arrays))
        updates.add(site, update, facts["cases"], staleness=staleness)
        told[site] = {**facts, "staleness": staleness}

    free = [site for site in run.trainers if site not in run.under_way]
    run.wait_while_paused()
    run.runs.add(run.name, SENT, {"round": number, "sites": free})
    task = run.task("train", round=number, arrays=run.weights.arrays())
    patience = Patience(
        min(rule.buffer, len(run.trainers)),
        0,
        rules.deadline_s,
        least=rules.quorum,
        answer_s=rules.deadline_s * run.study.training.rounds,
    )
    asked = run.post.ask(same_task(task, free), patience, fold, run.under_way)
    run.go_on_or_raise()
    online = run.post.online()
    training = [site for site in asked.late if site in online]
    asked.late = [site for site in asked.late if site not in online]
    if len(asked.answered) < rules.quorum:
        raise OutOfTime(
            f"round {number} closed with {len(asked.answered)} of {rules.quorum} answers"
            f"{told_of('still training', training)}{told_of('away', asked.late)}{refusals_of(asked)}",
            hint="the checkpoint of the round before is kept",
        )
    finish_round(run, number, updates, asked, told, still_training=training)
    tell_state(run, number, asked)


def take_up(run: Conduct, closed: int) -> dict[str, Open]:
    """What was sent in rounds up to `closed` and isn't answered, by site."""
    found = {}
    for site, number in sent_before(run.runs, run.name, closed).items():
        folder = run.registry / f"round-{number - 1:04d}"
        weights = load_checkpoint(folder, run.layout)
        found[site] = Open(run.task("train", round=number, arrays=weights.arrays()))
    return found


def sent_before(runs: RunDatabase, name: str, closed: int) -> dict[str, int]:
    """Site -> the round, `closed` or before, whose weights it was sent and has not answered."""
    open_: dict[str, int] = {}
    for _, kind, fact in runs.facts(name):
        if kind == SENT and fact["round"] <= closed:
            open_ |= dict.fromkeys(fact["sites"], fact["round"])
        if kind == "round_closed":
            for site in (*fact["answered"], *fact["refused"]):
                open_.pop(site, None)
    return open_
