"""The rounds of a run: weights out, updates folded in as they come, a step, a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fedai.aggregation import Gathering
from fedai.checkpoint import save_state
from fedai.errors import OutOfTime
from fedai.selection import select
from fedai.strategies import Conditions
from fedai.validation import validation_facts
from fedai.weights import Weights
from fedai.wire import Reply
from fedai_server.rounds import Asked, absent_of, refusals_of, told_of

if TYPE_CHECKING:
    from fedai_server.server_app import Conduct

log = logging.getLogger("fedai.server.run")


def close_round(run: Conduct, number: int) -> None:
    """One round, which is closed once it is on the disk and in the run database; on a full disk that waits.

    Raises OutOfTime below the quorum.
    """
    conditions = Conditions(run.layout, run.study.training.optimizer, len(run.trainers), run.registry)
    updates = run.room.wait_for(lambda: run.strategy.gather(conditions))
    told: dict[str, dict[str, Any]] = {}

    def fold(site: str, reply: Reply) -> None:
        facts, steps = training_facts(reply), int(reply.metrics["steps"])
        update = Weights.of(dict(reply.arrays))
        run.room.wait_for(lambda: updates.add(site, update, facts["cases"], steps, reply.arrays))
        told[site] = facts

    asked, least = _ask_in_turn(run, number, fold)
    if len(asked.answered) < least:
        raise OutOfTime(
            f"round {number} closed with {len(asked.answered)} of {least} answers"
            f"{told_of('late', asked.late)}{refusals_of(asked)}",
            hint="the checkpoint of the round before is kept",
        )
    finish_round(run, number, updates, asked, told, **_passed_over(run, number))
    tell_state(run, number, asked)


def finish_round(
    run: Conduct, number: int, updates: Gathering, asked: Asked, told: dict[str, dict[str, Any]], **more: Any
) -> None:
    """Move the weights, and write down what became of the round."""
    known = {**run.state, **updates.noted()}
    update = run.room.wait_for(updates.update)
    run.weights, run.state = run.strategy.step(run.weights, update, known, number)
    folder = f"round-{number:04d}"
    run.room.wait_for(lambda: save_state(run.registry / folder, run.state))
    facts = {"round": number, "sites": sorted(updates.sites), "cases": updates.cases}
    run.parent = run.save(folder, run.weights, **facts)
    run.runs.add(run.name, "round_closed", {**round_facts(number, asked, told, run.parent), **more})
    log.info("round %d closed in %.2f s by %s", number, asked.seconds, ", ".join(asked.answered))


def _ask_in_turn(run: Conduct, number: int, fold: Callable[[str, Reply], None]) -> tuple[Asked, int]:
    """Ask the first of the strategy's groups of which one site answers; gives how many had to."""
    arrays = {**run.weights.arrays(), **run.strategy.tell(run.state, run.layout)}
    before = Asked()
    for group in run.strategy.turns(selected_of(run, number), number):
        least = min(run.study.rounds.quorum, len(group))
        asked = run.ask("train", fold, sites=list(group), least=least, round=number, arrays=arrays)
        asked = before.then(asked)
        if asked.answered:
            break
        before = asked
    return asked, least


def selected_of(run: Conduct, number: int) -> tuple[str, ...]:
    """Who is asked to train in a round, by the study's rule and what sites said of their cohorts."""
    told = [fact for _, _, fact in run.runs.facts(run.name, "site_ready")]
    cases = {fact["site"]: int(fact["cohort"]["splits"]["train"]["cases"]) for fact in told}
    rules = run.study.rounds
    sizes = {site: cases[site] for site in run.trainers}
    return select(rules.selection, sizes, seed=run.study.training.seed, number=number, quorum=rules.quorum)


def _passed_over(run: Conduct, number: int) -> dict[str, list[str]]:
    """For the record, where sites are drawn: who wasn't, and so is neither late nor missing."""
    if run.study.rounds.selection.by == "all":
        return {}
    drawn = selected_of(run, number)
    return {"not_selected": [site for site in run.trainers if site not in drawn]}


def tell_state(run: Conduct, number: int, asked: Asked) -> None:
    """Running, or degraded where the last round closed without all of its sites."""
    absent = absent_of(asked)
    if absent:
        who = ", ".join(f"{site} ({why})" for site, why in sorted(absent.items()))
        run.runs.move(run.name, "degraded", f"round {number} closed without {who}")
    elif number < run.study.training.rounds:
        run.runs.move(run.name, "running", f"round {number + 1} of {run.study.training.rounds}")


def training_facts(reply: Reply) -> dict[str, Any]:
    """What the record says of an update."""
    return {
        "cases": int(reply.metrics["cases"]),
        "train_loss": float(reply.metrics["train_loss"]),
        "validation": validation_facts(reply.arrays, reply.metrics),
    }


def round_facts(
    number: int, asked: Asked, told: dict[str, dict[str, Any]], checkpoint: str
) -> dict[str, Any]:
    """What the record says of a round; `told`: the same facts of each site that answered."""
    kinds = dict.fromkeys(kind for facts in told.values() for kind in facts)
    by_site = {kind: {site: facts[kind] for site, facts in told.items()} for kind in kinds}
    return {
        "number": number,
        "answered": sorted(asked.answered),
        "late": asked.late,
        "refused": asked.refused,
        "seconds": round(asked.seconds, 3),
        "checkpoint": checkpoint,
        **by_site,
    }
