"""What a site tells of a network on its validation cases: the same in an agent and for a simulated site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedai.metrics import Mean, ScoreHistogram, patient_numbers, ratio, sum_by_patient
from fedai.study import Segmentation, Study

if TYPE_CHECKING:
    from torch import nn

    from fedai.local import Cases

Floats = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[Any]]


def validate(
    network: nn.Module,
    cases: Cases,
    study: Study,
    minimum_cell: int,
    *,
    may_go_on: Callable[[], bool] = lambda: True,
) -> tuple[Arrays, dict[str, int | float]]:
    """(`histogram`, or of a segmentation `dice` and `dice_cases`; `validation_loss` and `validation_cases`).

    Of a structure with fewer than `minimum_cell` patients nothing is told. Raises TrainingError.
    """
    if isinstance(study.task, Segmentation):
        arrays, losses = _outlined(network, cases, study.task.outputs, minimum_cell, may_go_on)
    else:
        arrays, losses = _scored(network, cases, may_go_on)
    loss = Mean.of(losses)
    told = {
        "validation_loss": loss.value if loss.weight else 0.0,
        "validation_cases": int(loss.weight),
    }
    return arrays, told


def _scored(network: nn.Module, cases: Cases, may_go_on: Callable[[], bool]) -> tuple[Arrays, Floats]:
    from fedai.evaluation import cross_entropy, predict

    scores = predict(network, cases.images, may_go_on=may_go_on)
    return ScoreHistogram.of(scores, cases.labels).to_arrays(), cross_entropy(scores, cases.labels)


def _outlined(
    network: nn.Module, cases: Cases, outputs: int, minimum_cell: int, may_go_on: Callable[[], bool]
) -> tuple[Arrays, Floats]:
    """Sums and numbers of Dice over the cases where it is defined, and each case's loss."""
    from fedai.evaluation import outline

    masks = cases.labels.astype(np.uint8, copy=False)
    outlines, losses = outline(network, cases.images, masks, may_go_on=may_go_on)
    dice = np.stack([_dice(masks == s, outlines == s) for s in range(1, outputs)], axis=1)
    defined = np.isfinite(dice)
    by_patient = sum_by_patient(defined.astype(np.int64), *patient_numbers(cases.patients, len(dice)))
    told = (by_patient > 0).sum(axis=0) >= minimum_cell
    sums = np.where(told, np.nansum(dice, axis=0), 0.0)
    return {"dice": sums, "dice_cases": np.where(told, defined.sum(axis=0), 0)}, losses


def _dice(masks: npt.NDArray[np.bool_], outlines: npt.NDArray[np.bool_]) -> Floats:
    """float64 [N], NaN where neither has a pixel."""
    both, sizes = (masks & outlines).sum(axis=(1, 2)), (masks.sum(axis=(1, 2)) + outlines.sum(axis=(1, 2)))
    return np.asarray(np.where(sizes > 0, 2 * both / np.maximum(sizes, 1), np.nan), np.float64)


def validation_facts(
    arrays: Mapping[str, npt.NDArray[Any]], told: Mapping[str, int | float]
) -> dict[str, Any]:
    """What the record says of it: loss, AUROC of each comparison (or mean Dice of each structure), cases."""
    cases = int(told["validation_cases"])
    if "dice" in arrays:
        name, values = "dice", ratio(arrays["dice"], arrays["dice_cases"])
    else:
        name, values = "auroc", ScoreHistogram.from_arrays(arrays).auroc()
    return {
        "loss": float(told["validation_loss"]) if cases else None,
        name: [None if np.isnan(value) else float(value) for value in values],
        "cases": cases,
    }
