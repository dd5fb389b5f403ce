"""What a bench computes of a segmentation: outlines of its cases, and how they agree with the masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedai.outline_score import OutlineLinks, OutlineScore
from fedai.study import Segmentation
from fedai.wire import Arrays, Metrics
from fedai_site.marks import seed_of_draws

if TYPE_CHECKING:
    from fedai_site.client_app import Bench

Floats = NDArray[np.float64]


def score(bench: Bench, kept: Path) -> tuple[Arrays, Metrics]:
    """The score of the network in hand on the test cases, of which the values stay here, in `kept`."""
    from fedai.evaluation import outline
    from fedai.outlines import measure

    task, cases = _task(bench), bench.cases("test")
    outlines, _ = outline(bench.model.network, cases.images, cases.labels, may_go_on=bench.may_still)
    values, found = measure(cases.labels, outlines, len(task.structures), cases.spacing, task.tolerance_mm)
    np.save(kept, values)
    bench.remember()
    made = OutlineScore.of(values, found, cases.patients, bench.permit.minimum_cell)
    return made.to_arrays(), {"cases": len(values), "patients": len(set(cases.patients))}


def link(bench: Bench, values: Sequence[Floats]) -> tuple[Arrays, Metrics]:
    """What links the models of these values, each as `score` kept it."""
    patients = bench.patients("test")
    seed = seed_of_draws(bench.home.pseudonym_key.read_bytes(), bench.cohort)
    links = OutlineLinks.of(values, patients, seed, bench.permit.minimum_cell)
    return {**links.to_arrays(), "marks": bench.marks()}, {"cases": len(patients)}


def _task(bench: Bench) -> Segmentation:
    assert isinstance(bench.study.task, Segmentation)
    return bench.study.task
