"""Several runs on the same cases as one judgement, whose models are called RUN/MODEL.

Each site's replicates carry what two runs have in common (see `replicates`), so models of different runs are
compared in pairs although no site ever had both at hand. Runs that aren't about the same cases are refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedai.errors import ConfigError
from fedai.judgement import Judgement, Subgroups
from fedai.linking import JointCalls, Linked
from fedai.metrics import Floats
from fedai.outline_judgement import OutlineJudgement
from fedai.placements import PlacementSums
from fedai.replicates import Replicates, products_between

DIFFERENCES = {
    "test_cases": "the test cases differ",
    "test_labels": "the labels of the test cases differ",
    "draws": "the patients' weights were drawn by different software",
}


def join(runs: Mapping[str, Judgement]) -> Judgement:
    """One judgement of all models of runs by name. Raises ConfigError, with every reason, where they can't be
    compared."""
    named = list(runs.items())
    problems = [p for (a, one), (b, other) in itertools.pairwise(named) for p in _differing(a, one, b, other)]
    refuse(problems, "compare runs of the same classes, threshold and sites, on the same test cases")
    first, judgements = named[0][1], list(runs.values())
    sites = first.sites
    return Judgement(
        tuple(f"{run}/{model}" for run, j in named for model in j.models),
        first.classes,
        first.threshold,
        {s: {f"{run}/{m}": score for run, j in named for m, score in j.scores[s].items()} for s in sites},
        join_linked([j.pooled for j in judgements]),
        {site: join_linked([j.own[site] for j in judgements]) for site in sites},
        {site: join_calls([j.calls[site] for j in judgements]) for site in sites},
        first.marks,
        {},
        *_join_subgroups(named),
    )


def refuse(problems: Sequence[str], hint: str) -> None:
    """Raise ConfigError with every reason why runs can't be compared, if there is one."""
    if problems:
        told = "these runs can't be compared:\n  " + "\n  ".join(dict.fromkeys(problems))
        raise ConfigError(told, hint=hint)


def _join_subgroups(runs: Sequence[tuple[str, Judgement]]) -> tuple[Mapping[str, tuple[str, ...]], Subgroups]:
    """Levels, and subgroups by site, where all runs were asked for the same ones; else none."""
    levels = runs[0][1].levels
    if any(dict(j.levels) != dict(levels) for _, j in runs):
        return {}, {}
    sites = set.intersection(*(set(j.subgroups) for _, j in runs))
    return levels, {
        site: {f"{run}/{m}": told for run, j in runs for m, told in j.subgroups[site].items()}
        for site in runs[0][1].sites
        if site in sites
    }


def _differing(a: str, one: Judgement, b: str, other: Judgement) -> Iterator[str]:
    pair = f"{a} and {b}"
    if one.classes != other.classes:
        yield f"{pair}: label definitions differ: {', '.join(one.classes)} and {', '.join(other.classes)}"
    if one.threshold != other.threshold:
        yield f"{pair}: the thresholds differ: {one.threshold:g} and {other.threshold:g}"
    yield from unlike_cohorts(a, one, b, other)
    if one.decision_thresholds != other.decision_thresholds:
        yield f"{pair}: the thresholds of their decision curves differ"


def unlike_cohorts(
    a: str, one: Judgement | OutlineJudgement, b: str, other: Judgement | OutlineJudgement
) -> Iterator[str]:
    """Why two runs' models weren't tested on the same cases, site by site; nothing if they were."""
    pair = f"{a} and {b}"
    for site in sorted(set(one.sites) ^ set(other.sites)):
        has = a if site in one.sites else b
        yield f"{pair}: test cohorts differ: {site} is part of {has} alone"
    for site in sorted(set(one.sites) & set(other.sites)):
        yield from (f"{pair}: at {site} {what}" for what in _unlike(one.marks, other.marks, site))


def _unlike(
    one: Mapping[str, Mapping[str, str]], other: Mapping[str, Mapping[str, str]], site: str
) -> Iterator[str]:
    """Reasons of one site; labels or weights of other cases are no reason of their own."""
    for name, what in DIFFERENCES.items():
        marks = [told.get(site, {}).get(name) for told in (one, other)]
        if None in marks:
            yield "it isn't known on which cases the models were tested"
            return
        if marks[0] != marks[1]:
            yield what
            return


def join_linked(runs: Sequence[Linked]) -> Linked:
    """Placement sums with the products between runs, from the replicates."""
    sums, ks = [run.placements for run in runs], runs[0].placements.cases.shape[1]
    blocks = [(s.products, run.replicates, s.models) for s, run in zip(sums, runs, strict=True)]
    return Linked(
        PlacementSums(
            _joined_products(blocks, ks),
            np.concatenate([s.sums for s in sums], axis=1),
            sums[0].cases,
            sums[0].members,
            sums[0].patients,
        ),
        np.concatenate([run.precisions for run in runs]),
        np.concatenate([run.recalibrations for run in runs]),
        _side_major([run.replicates for run in runs]),
    )


def join_calls(runs: Sequence[JointCalls]) -> JointCalls:
    """Joint calls with the products between runs; how many cases two runs both call rightly stays unknown."""
    k = runs[0].cases.shape[1]
    sizes = [run.both.shape[1] for run in runs]
    both = np.full((2, sum(sizes), sum(sizes)), -1, np.int64)
    for run, start in zip(runs, np.cumsum([0, *sizes[:-1]]), strict=True):
        size = run.both.shape[1]
        both[:, start : start + size, start : start + size] = run.both
    blocks = [(run.products, run.replicates, size // k) for run, size in zip(runs, sizes, strict=True)]
    drawn = _side_major([run.replicates for run in runs])
    return JointCalls(both, _joined_products(blocks, k), runs[0].cases, drawn)


Block = tuple[Floats, Replicates, int]  # a run's own products and replicates, and how many models it has


def _joined_products(runs: Sequence[Block], k: int) -> Floats:
    """[2q, 2q] over all runs, side-major, then models in the order of the runs, then classes."""
    places = _places([models * k for _, _, models in runs])
    size = sum(2 * models * k for _, _, models in runs)
    joined = np.zeros((size, size))
    for (i, a), (j, b) in itertools.combinations_with_replacement(enumerate(runs), 2):
        block = a[0] if i == j else products_between(a[1], b[1], a[0], b[0], k)
        joined[np.ix_(places[i], places[j])] = block
        joined[np.ix_(places[j], places[i])] = block.T
    return joined


def _places(sizes: Sequence[int]) -> list[NDArray[np.int64]]:
    """Where each run's 2q entries stand among all, both side-major."""
    starts, whole = np.cumsum([0, *sizes[:-1]]), sum(sizes)
    return [
        np.concatenate([start + np.arange(size), whole + start + np.arange(size)])
        for start, size in zip(starts, sizes, strict=True)
    ]


def _side_major(parts: Sequence[Replicates]) -> Replicates:
    halves = [np.split(part, 2) for part in parts]
    return np.concatenate([half[side] for side in range(2) for half in halves])
