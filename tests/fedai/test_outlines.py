from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric

from fedai.outlines import FOUND, MEASURES, edge_distances, measure

SPACING = (0.7, 1.3)


def blobs(number: int, seed: int, size: tuple[int, int] = (40, 48)) -> np.ndarray:
    """bool [number, rows, columns]: an ellipse each, some cut by the border."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    made = []
    for _ in range(number):
        centre, radii = rng.uniform((2, 2), size), rng.uniform(3, 12, 2)
        made.append(((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1)
    return np.stack(made)


def values_of(reference: np.ndarray, outline: np.ndarray, tolerance: float = 2.0) -> dict[str, float]:
    spacing = np.array([SPACING])
    found, _ = measure(
        reference[None].astype(np.uint8), outline[None].astype(np.uint8), 1, spacing, tolerance
    )
    return dict(zip(MEASURES, found[0, 0], strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_dice_nsd_and_hd95_are_those_of_monai(seed: int) -> None:
    references, outlines = blobs(8, seed), np.roll(blobs(8, seed), (2, -1), axis=(1, 2)) | blobs(8, 50 + seed)
    y, p = (torch.from_numpy(masks[:, None].astype(np.float32)) for masks in (references, outlines))
    dice = DiceMetric()(p, y).numpy().ravel()
    hd95 = HausdorffDistanceMetric(include_background=True, percentile=95)(p, y, spacing=SPACING)
    nsd = SurfaceDiceMetric([2.0], include_background=True)(p, y, spacing=SPACING)
    found = [values_of(*pair) for pair in zip(references, outlines, strict=True)]
    assert np.allclose([one["dice"] for one in found], dice, atol=1e-6)
    assert np.allclose([one["hd95_mm"] for one in found], hd95.numpy().ravel(), atol=1e-5)
    assert np.allclose([one["nsd"] for one in found], nsd.numpy().ravel(), atol=1e-6)


def test_a_square_that_is_shifted_has_the_values_that_can_be_counted_by_hand() -> None:
    reference, outline = np.zeros((20, 20), np.bool_), np.zeros((20, 20), np.bool_)
    reference[5:9, 5:9], outline[5:9, 7:12] = True, True
    found = values_of(reference, outline, tolerance=1.0)
    assert found["dice"] == pytest.approx(2 * 8 / 36)
    assert found["area_error_mm2"] == pytest.approx(4 * 0.7 * 1.3)
    assert found["hd95_mm"] == pytest.approx(3 * 1.3)
    near, far = edge_distances(reference, outline, SPACING)
    assert found["nsd"] == pytest.approx(((near <= 1).sum() + (far <= 1).sum()) / (12 + 14))


def test_what_nobody_outlines_is_undefined_and_what_one_alone_does_is_a_dice_of_0() -> None:
    references, outlines = np.zeros((4, 9, 9), np.uint8), np.zeros((4, 9, 9), np.uint8)
    references[2:, 2:4, 2:4] = 1
    outlines[[1, 3], 2:4, 2:5] = 1
    values, found = measure(references, outlines, 2, np.full((4, 2), 2.0), 2.0)
    assert [FOUND[kind] for kind in found[:, 0]] == ["neither", "model_alone", "reference_alone", "both"]
    assert np.isnan(values[0]).all()
    assert np.isnan(values[:, 1]).all(), "the second structure is nowhere"
    assert values[1, 0, [0, 1, 3]].tolist() == [0.0, 0.0, 6 * 4.0]
    assert values[2, 0, [0, 1, 3]].tolist() == [0.0, 0.0, -4 * 4.0]
    assert np.isnan(values[1:3, 0, 2]).all()
    assert values[3, 0, 0] == pytest.approx(0.8)


def test_structures_are_measured_each_by_itself() -> None:
    references = np.zeros((1, 12, 12), np.uint8)
    references[0, 1:5, 1:5], references[0, 7:11, 7:11] = 1, 2
    values, _ = measure(references, np.where(references == 2, 2, 0).astype(np.uint8), 2, np.ones((1, 2)), 1.0)
    assert values[0, :, 0].tolist() == [0.0, 1.0]
    assert values[0, 1].tolist() == [1.0, 1.0, 0.0, 0.0]
