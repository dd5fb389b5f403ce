from __future__ import annotations

import numpy as np
import pytest

from fedai.preparation import fit, prepare

PERCENTILES = (1.0, 99.0)


def test_resizing_averages_areas_and_keeps_the_aspect_ratio() -> None:
    image = np.zeros((4, 8), np.float32)
    image[:2, :2] = 1
    small = fit(image, (4, 4))
    expected = np.zeros((4, 4), np.float32)
    expected[1, 0] = 1
    np.testing.assert_allclose(small, expected)
    assert fit(np.ones((5, 7), np.float32), (14, 14)).sum() == pytest.approx(14 * 10, rel=1e-5)


def test_a_gain_or_an_offset_of_the_detector_changes_nothing() -> None:
    image = np.random.default_rng(0).random((20, 20)).astype(np.float32)
    plain = prepare(image, (8, 8), *PERCENTILES).astype(int)
    other = prepare(image * 3000 + 17, (8, 8), *PERCENTILES).astype(int)
    assert np.abs(plain - other).max() <= 1
    assert plain.max() > 150 > 100 > plain.min()


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_an_image_without_contrast_is_black(value: float) -> None:
    assert not prepare(np.full((9, 9), value, np.float32), (8, 8), *PERCENTILES).any()
