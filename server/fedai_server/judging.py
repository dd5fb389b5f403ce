"""The end of a run: each site's own model, every model on every site's test cases, and what links them."""

from __future__ import annotations

import functools
import json
import logging
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedai.aggregation import check_update
from fedai.checkpoint import load_checkpoint, write_whole
from fedai.errors import FederationError
from fedai.judgement import Judgement, pool_histogram
from fedai.linking import JointCalls, Linked
from fedai.score import Score
from fedai.weights import Weights, applied
from fedai.wire import Reply, read_marks
from fedai_server.rounds import absent_of, same_task, told_of

if TYPE_CHECKING:
    from fedai_server.server_app import Conduct

log = logging.getLogger("fedai.server.run")


def train_alone(run: Conduct, start: Weights) -> dict[str, Weights]:
    """Each site's local-only model, trained as long as the federated one from the same first weights."""
    trained = {fact["site"] for _, _, fact in run.runs.facts(run.name, "trained_alone")}
    models = {f"local:{s}": load_checkpoint(run.registry / f"local-{s}", run.layout) for s in trained}

    def fold(site: str, reply: Reply) -> None:
        update = Weights.of(dict(reply.arrays))
        check_update(update, run.layout, int(reply.metrics["cases"]))
        models[f"local:{site}"] = applied(start, update)
        run.save(
            f"local-{site}",
            models[f"local:{site}"],
            round=0,
            sites=[site],
            cases=int(reply.metrics["cases"]),
        )
        run.runs.add(run.name, "trained_alone", {"site": site})

    missing = [site for site in run.sites if site not in trained]
    if missing:
        run.ask("train_alone", fold, sites=missing, arrays=start.arrays())
    return dict(sorted(models.items()))


def judge(run: Conduct, models: dict[str, Weights]) -> None:
    """Every model at every site, then the sums that link them. Sites that didn't answer for all are
    left out and named.
    """
    left_out = {fact["site"]: fact["why"] for _, _, fact in run.runs.facts(run.name, "site_left_out")}
    judges = [site for site in run.sites if site not in left_out]  # a pool may only get smaller
    scores: dict[str, dict[str, Score]] = {site: {} for site in judges}
    absent: dict[str, str] = {}
    for model, weights in models.items():

        def fold(site: str, reply: Reply, model: str = model) -> None:
            scores[site][model] = Score.from_arrays(reply.arrays)

        asked = run.ask("score", fold, sites=judges, model=model, arrays=weights.arrays())
        run.runs.add(run.name, "model_scored", {"model": model, "answered": sorted(asked.answered)})
        absent = {**absent_of(asked), **absent}
    complete = {site: by_model for site, by_model in scores.items() if len(by_model) == len(models)}
    _leave_out(run, absent)
    left_out = {**left_out, **absent}
    _require_quorum(run, len(complete), "scored every model", left_out)
    _link(run, complete, tuple(models), left_out)


def _leave_out(run: Conduct, absent: dict[str, str]) -> None:
    for site, why in absent.items():
        log.warning("%s is left out of the judgement: %s", site, why)
        run.runs.add(run.name, "site_left_out", {"site": site, "why": why})


def _require_quorum(run: Conduct, sites: int, did: str, left_out: dict[str, str]) -> None:
    if sites < run.study.rounds.quorum:
        who = told_of("left out", [f"{site} ({why})" for site, why in left_out.items()])
        raise FederationError(
            f"{sites} of {run.study.rounds.quorum} sites needed {did}{who}",
            hint="the models are kept; look at the sites' logs",
        )


def _link(
    run: Conduct, scores: dict[str, dict[str, Score]], models: tuple[str, ...], left_out: dict[str, str]
) -> None:
    """Pool the scores and ask for the sums against the pool; who fails now is left out of both, and the
    rest is asked again, with a pool that is smaller by its part.
    """
    while True:
        answers, absent = _ask_to_place(run, scores, models)
        if not absent:
            break
        _leave_out(run, absent)
        left_out = {**left_out, **absent}
        scores = {site: by_model for site, by_model in scores.items() if site not in absent}
        _require_quorum(run, len(scores), "linked the models", left_out)
    linked = [answer.pooled for answer in answers.values()]
    judgement = Judgement(
        models,
        run.study.task.classes,
        run.study.judgement.threshold,
        scores,
        functools.reduce(operator.add, linked),
        {site: answer.own for site, answer in answers.items()},
        {site: answer.calls for site, answer in answers.items()},
        {site: answer.marks for site, answer in answers.items()},
        left_out,
    )
    content = json.dumps(judgement.to_json()).encode()
    run.room.wait_for(lambda: write_whole(run.registry / "judgement.json", content))


@dataclass(frozen=True)
class _Answer:
    """What a site answered to the linking."""

    pooled: Linked
    own: Linked
    calls: JointCalls
    marks: dict[str, str]


def _ask_to_place(
    run: Conduct, scores: dict[str, dict[str, Score]], models: tuple[str, ...]
) -> tuple[dict[str, _Answer], dict[str, str]]:
    run.wait_while_paused()
    pooled = np.stack([pool_histogram(scores, model).to_arrays()["histogram"] for model in models])
    answers: dict[str, _Answer] = {}

    def fold(site: str, reply: Reply) -> None:
        pooled, own = (_linked_in(reply, of) for of in ("pooled", "own"))
        marks = read_marks(reply.arrays["marks"])
        answers[site] = _Answer(pooled, own, JointCalls.from_arrays(reply.arrays), marks)

    task = run.task("place", models=models, arrays={"histograms": pooled})
    patience = run.patience(len(scores), least=run.study.rounds.quorum)
    asked = run.post.ask(same_task(task, list(scores)), patience, fold)
    run.go_on_or_raise()
    return answers, absent_of(asked)


def _linked_in(reply: Reply, of: str) -> Linked:
    start = f"{of}_"
    return Linked.from_arrays(
        {key.removeprefix(start): array for key, array in reply.arrays.items() if key.startswith(start)}
    )
