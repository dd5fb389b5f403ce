"""Several runs of a segmentation on the same cases as one judgement, whose models are called RUN/MODEL.

As `fedai.joining`: what two runs' replicates have in common is what their models have in common. How each
patient differs between models of two runs stays unknown, and with it Wilcoxon's test of these.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fedai.joining import refuse, unlike_cohorts
from fedai.outline_judgement import OutlineJudgement
from fedai.outline_score import OutlineLinks
from fedai.signed_ranks import pair_of


def join_outlines(
    runs: Mapping[str, OutlineJudgement], grids: Mapping[str, Sequence[int]]
) -> OutlineJudgement:
    """One judgement of all models of runs by name. `grids`: rows and columns that each run's outlines were
    measured on. Raises ConfigError, with every reason, where they can't be compared.
    """
    named = list(runs.items())
    problems = [
        problem
        for (a, one), (b, other) in itertools.pairwise(named)
        for problem in (
            *_differing(a, one, b, other),
            *_unlike_grids(a, grids[a], b, grids[b]),
            *unlike_cohorts(a, one, b, other),
        )
    ]
    refuse(problems, "compare runs of the same structures, tolerance, grid and sites, on the same test cases")
    first = named[0][1]
    return OutlineJudgement(
        tuple(f"{run}/{model}" for run, j in named for model in j.models),
        first.structures,
        first.tolerance_mm,
        {s: {f"{run}/{m}": j.scores[s][m] for run, j in named for m in j.models} for s in first.sites},
        {s: join_links([j.links[s] for _, j in named]) for s in first.sites},
        first.marks,
    )


def _differing(a: str, one: OutlineJudgement, b: str, other: OutlineJudgement) -> Iterator[str]:
    pair = f"{a} and {b}"
    if one.structures != other.structures:
        told = f"{', '.join(one.structures)} and {', '.join(other.structures)}"
        yield f"{pair}: structures differ: {told}"
    if one.tolerance_mm != other.tolerance_mm:
        yield f"{pair}: the tolerances differ: {one.tolerance_mm:g} mm and {other.tolerance_mm:g} mm"


def _unlike_grids(a: str, one: Sequence[int], b: str, other: Sequence[int]) -> Iterator[str]:
    if list(one) != list(other):
        sizes = " and ".join("x".join(map(str, size)) or "not known" for size in (one, other))
        yield f"{a} and {b}: outlines were measured on other pixel grids: {sizes}"


def join_links(runs: Sequence[OutlineLinks]) -> OutlineLinks:
    """What links the models of all runs at one site. How many patients have a case for a model of any run
    isn't known; it is at least the largest number of one run.
    """
    sizes = [run.models for run in runs]
    whole, starts = sum(sizes), np.cumsum([0, *sizes[:-1]])
    products = np.full((*runs[0].patients.shape, 2 * whole, 2 * whole), np.nan)
    drawn = np.zeros((*products.shape[:3], runs[0].drawn.shape[3]), np.float32)
    differences = np.full((len(products), whole * (whole - 1) // 2, runs[0].differences.shape[2]), -1)
    for run, start, size in zip(runs, starts, sizes, strict=True):
        places = np.concatenate([start + np.arange(size), whole + start + np.arange(size)])
        products[..., places[:, None], places] = run.products
        drawn[:, :, places] = run.drawn
        pairs = [pair_of(start + a, start + b, whole) for a, b in itertools.combinations(range(size), 2)]
        differences[:, pairs] = run.differences
    return OutlineLinks(products, np.max([run.patients for run in runs], axis=0), drawn, differences)
