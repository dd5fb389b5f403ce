"""What a bench computes of a segmentation: outlines of its cases, and how they agree with the masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedai.metrics import patient_numbers, sum_by_patient
from fedai.outline_score import OutlineLinks, OutlineScore
from fedai.study import Segmentation
from fedai.wire import Arrays, Metrics
from fedai_site.marks import seed_of_draws

if TYPE_CHECKING:
    from fedai_site.client_app import Bench

Floats = npt.NDArray[np.float64]


def score(bench: Bench, kept: Path) -> tuple[Arrays, Metrics]:
    """The score of the network in hand on the test cases, of which the values stay here, in `kept`."""
    from fedai.evaluation import outline
    from fedai.outlines import measure

    task, cases = _task(bench), bench.cases("test")
    outlines, _ = outline(bench.model.network, cases.images, cases.labels, may_go_on=bench.may_still)
    values, found = measure(cases.labels, outlines, len(task.structures), cases.spacing, task.tolerance_mm)
    np.save(kept, values)
    bench.remember("test", bench.cohort.splits["test"])
    made = OutlineScore.of(values, found, cases.patients, bench.permit.minimum_cell)
    return made.to_arrays(), {"cases": len(values), "patients": len(set(cases.patients))}


def link(bench: Bench, values: Sequence[Floats]) -> tuple[Arrays, Metrics]:
    """What links the models of these values, each as `score` kept it."""
    patients = bench.patients("test")
    seed = seed_of_draws(bench.home.pseudonym_key.read_bytes(), bench.cohort)
    links = OutlineLinks.of(values, patients, seed, bench.permit.minimum_cell)
    return {**links.to_arrays(), "marks": bench.marks()}, {"cases": len(patients)}


def validate(bench: Bench) -> tuple[Arrays, Floats]:
    """Sums and numbers of Dice over the validation cases where it is defined, and each case's loss. Of a
    structure with fewer such patients than the minimum cell, nothing.
    """
    from fedai.evaluation import outline

    masks = bench.labels("validation")
    outlines, losses = outline(
        bench.model.network, bench.images("validation"), masks, may_go_on=bench.may_still
    )
    dice = np.stack([_dice(masks == s, outlines == s) for s in range(1, _task(bench).outputs)], axis=1)
    cases = np.isfinite(dice)
    by_patient = sum_by_patient(
        cases.astype(np.int64), *patient_numbers(bench.patients("validation"), len(dice))
    )
    told = (by_patient > 0).sum(axis=0) >= bench.permit.minimum_cell
    sums = np.where(told, np.nansum(dice, axis=0), 0.0)
    return {"dice": sums, "dice_cases": np.where(told, cases.sum(axis=0), 0)}, losses


def _dice(masks: npt.NDArray[np.bool_], outlines: npt.NDArray[np.bool_]) -> Floats:
    """float64 [N], NaN where neither has a pixel."""
    both, sizes = (masks & outlines).sum(axis=(1, 2)), (masks.sum(axis=(1, 2)) + outlines.sum(axis=(1, 2)))
    return np.asarray(np.where(sizes > 0, 2 * both / np.maximum(sizes, 1), np.nan), np.float64)


def _task(bench: Bench) -> Segmentation:
    assert isinstance(bench.study.task, Segmentation)
    return bench.study.task
