"""The end of a run: each site's own model, every model on every site's test cases, and what links them."""

from __future__ import annotations

import functools
import json
import logging
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedai.aggregation import check_update
from fedai.checkpoint import load_checkpoint, write_whole
from fedai.errors import FederationError
from fedai.judgement import Judgement, Subgroups, pool_histogram
from fedai.linking import JointCalls, Linked
from fedai.outline_judgement import OutlineJudgement
from fedai.outline_score import OutlineLinks, OutlineScore
from fedai.score import Score
from fedai.study import Segmentation
from fedai.subgroups import Subgroup, read_subgroups
from fedai.weights import Weights, applied
from fedai.wire import Reply, read_marks
from fedai_server.rounds import Asked, absent_of, same_task, told_of

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
    scores: dict[str, dict[str, Any]] = {site: {} for site in judges}
    subgroups: dict[str, dict[str, tuple[Subgroup, ...]]] = {site: {} for site in judges}
    number = sum(map(len, run.study.judgement.levels.values()))
    is_outlined = isinstance(run.study.task, Segmentation)
    absent: dict[str, str] = {}
    for model, weights in models.items():

        def fold(site: str, reply: Reply, model: str = model) -> None:
            if is_outlined:
                scores[site][model] = OutlineScore.from_arrays(reply.arrays)
                return
            score = Score.from_arrays(reply.arrays)
            subgroups[site][model] = tuple(read_subgroups(reply.arrays, number, score.calls.threshold))
            scores[site][model] = score

        asked = run.ask("score", fold, sites=judges, model=model, arrays=weights.arrays())
        run.runs.add(run.name, "model_scored", {"model": model, "answered": sorted(asked.answered)})
        absent = {**absent_of(asked), **absent}
    complete = {site: by_model for site, by_model in scores.items() if len(by_model) == len(models)}
    _leave_out(run, absent)
    left_out = {**left_out, **absent}
    _require_quorum(run, len(complete), "scored every model", left_out)
    if is_outlined:
        _link_outlines(run, complete, tuple(models), left_out)
    else:
        _link(run, complete, tuple(models), left_out, subgroups if number else {})


def _leave_out(run: Conduct, absent: dict[str, str]) -> None:
    for site, why in absent.items():
        log.warning("%s is left out of the judgement: %s", site, why, extra={"site": site})
        run.runs.add(run.name, "site_left_out", {"site": site, "why": why})


def _require_quorum(run: Conduct, sites: int, did: str, left_out: dict[str, str]) -> None:
    if sites < run.study.rounds.quorum:
        who = told_of("left out", [f"{site} ({why})" for site, why in left_out.items()])
        raise FederationError(
            f"{sites} of {run.study.rounds.quorum} sites needed {did}{who}",
            hint="the models are kept; look at the sites' logs",
        )


def _link(
    run: Conduct,
    scores: dict[str, dict[str, Score]],
    models: tuple[str, ...],
    left_out: dict[str, str],
    subgroups: Subgroups,
) -> None:
    """Pool the scores and ask for the sums against the pool; who fails now is left out of both, and the
    rest is asked again, with a pool that is smaller by its part.
    """
    while True:
        answers, absent = _ask_to_place(run, scores, models)
        if not absent:
            break
        scores, left_out = _without(run, scores, absent, left_out)
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
        dict(run.study.judgement.levels.items()),
        {site: told for site, told in subgroups.items() if site in scores},
    )
    _keep(run, judgement)


def _keep(run: Conduct, judgement: Judgement | OutlineJudgement) -> None:
    content = json.dumps(judgement.to_json()).encode()
    run.room.wait_for(lambda: write_whole(run.registry / "judgement.json", content))


def _without(
    run: Conduct, scores: dict[str, Any], absent: dict[str, str], left_out: dict[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The scores without sites that didn't answer, and all that are left out. Raises FederationError."""
    _leave_out(run, absent)
    left_out = {**left_out, **absent}
    scores = {site: by_model for site, by_model in scores.items() if site not in absent}
    _require_quorum(run, len(scores), "linked the models", left_out)
    return scores, left_out


def _link_outlines(
    run: Conduct,
    scores: dict[str, dict[str, OutlineScore]],
    models: tuple[str, ...],
    left_out: dict[str, str],
) -> None:
    """Ask for what links the outlines; nothing is pooled for it, so nobody has to be asked again."""
    task, answers = run.study.task, dict[str, OutlineLinks]()
    marks: dict[str, dict[str, str]] = {}
    assert isinstance(task, Segmentation)

    def fold(site: str, reply: Reply) -> None:
        answers[site] = OutlineLinks.from_arrays(reply.arrays)
        marks[site] = read_marks(reply.arrays["marks"])

    absent = absent_of(_place(run, list(scores), fold, models=models))
    if absent:
        scores, left_out = _without(run, scores, absent, left_out)
    facts = task.structures, task.tolerance_mm
    _keep(run, OutlineJudgement(models, *facts, scores, answers, marks, left_out))


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
    pooled = np.stack([pool_histogram(scores, model).to_arrays()["histogram"] for model in models])
    answers: dict[str, _Answer] = {}

    def fold(site: str, reply: Reply) -> None:
        pooled, own = (_linked_in(reply, of) for of in ("pooled", "own"))
        marks = read_marks(reply.arrays["marks"])
        answers[site] = _Answer(pooled, own, JointCalls.from_arrays(reply.arrays), marks)

    asked = _place(run, list(scores), fold, models=models, arrays={"histograms": pooled})
    return answers, absent_of(asked)


def _place(run: Conduct, sites: list[str], fold: Callable[[str, Reply], None], **facts: Any) -> Asked:
    """Ask all of these sites what links the models."""
    run.wait_while_paused()
    patience = run.patience(len(sites), least=run.study.rounds.quorum)
    asked = run.post.ask(same_task(run.task("place", **facts), sites), patience, fold)
    run.go_on_or_raise()
    return asked


def _linked_in(reply: Reply, of: str) -> Linked:
    start = f"{of}_"
    return Linked.from_arrays(
        {key.removeprefix(start): array for key, array in reply.arrays.items() if key.startswith(start)}
    )
