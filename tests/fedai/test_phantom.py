"""Radiographs: what a scanner does to them, and that a nodule is where it was put."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fedai.demo.lettering import burn_in, draw_line, fold
from fedai.demo.phantom import Nodule, Scanner, draw_anatomy, draw_nodules, radiograph
from fedai.demo.spectra import SIZE

PLAIN = Scanner()


def expose(
    scanner: Scanner = PLAIN, nodules: int | tuple[Nodule, ...] = 0, seed: int = 3
) -> NDArray[np.float64]:
    return (
        radiograph(np.random.default_rng(seed), scanner, nodules, draw_anatomy(np.random.default_rng(7)))
        + 0.0
    )


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_an_image_fills_its_bits_and_no_more(bits: int) -> None:
    pixels = radiograph(np.random.default_rng(0), Scanner(bits=bits), 1)
    assert pixels.dtype == np.uint16
    assert pixels.shape == (SIZE, SIZE)
    assert 2 ** (bits - 1) < pixels.max() < 2**bits


def test_the_same_seed_gives_the_same_image_and_another_seed_another() -> None:
    assert np.array_equal(expose(seed=1), expose(seed=1))
    assert not np.array_equal(expose(seed=1), expose(seed=2))


def test_monochrome1_is_the_inverted_picture() -> None:
    inverted = expose(replace(PLAIN, monochrome1=True))
    assert np.abs(2**PLAIN.bits - 1 - inverted - expose()).max() <= 1


def test_lungs_are_darker_than_the_heart_and_the_air_outside_is_darkest() -> None:
    image = expose()
    lung, middle, air = image[200:260, 130:170].mean(), image[200:400, 246:266].mean(), image[:20, :20].mean()
    assert air < lung < middle


def test_a_nodule_brightens_its_own_place_only() -> None:
    there = expose(nodules=(Nodule(x=-0.4, y=-0.1, radius=0.08, contrast=0.3),)) - expose()
    row, column = np.unravel_index(there.argmax(), there.shape)
    assert abs(column - (1 - 0.4) * SIZE / 2) < 30
    assert abs(row - (1 - 0.1) * SIZE / 2) < 30
    assert there.max() > 0.1 * 2**PLAIN.bits
    assert (there != 0).mean() < 0.02


def test_nodules_lie_inside_the_lungs() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        chest = draw_anatomy(rng)
        for nodule in draw_nodules(rng, chest, 3):
            assert abs(abs(nodule.x) - chest.lung_x) < chest.lung_width
            assert chest.lung_top < nodule.y < min(chest.diaphragm)


def test_a_blurring_kernel_smooths_and_a_sharpening_one_roughens() -> None:
    def roughness(kernel: float) -> float:
        return float(np.abs(np.diff(expose(replace(PLAIN, kernel=kernel)), axis=0)).mean())

    assert roughness(2.0) < roughness(0.5) < roughness(-1.5)


def test_grid_lines_show_at_their_period() -> None:
    def line_strength(scanner: Scanner) -> float:
        spectrum = np.abs(np.fft.rfft(expose(scanner).mean(axis=0)))
        return float(spectrum[SIZE // 4])

    grid = replace(PLAIN, grid_period=4.0, grid_strength=0.02)
    assert line_strength(grid) > 10 * line_strength(PLAIN)


def test_a_larger_field_of_view_shows_a_smaller_chest() -> None:
    def bright(scanner: Scanner) -> float:
        return float((expose(scanner) > 0.35 * 2**PLAIN.bits).mean())

    assert bright(replace(PLAIN, field_of_view=1.3)) < bright(PLAIN)


def test_lettering_folds_accents_and_leaves_out_what_it_cannot_draw() -> None:
    assert fold("Éxquivô, 7!") == "EXQUIVO, 7 "
    assert draw_line("ii", 1).sum() == 2 * draw_line("I", 1).sum()
    assert not draw_line("한", 2).any()


@pytest.mark.parametrize(
    ("corner", "rows", "columns"),
    [("top left", slice(0, 64), slice(0, 64)), ("bottom right", slice(64, 128), slice(64, 128))],
)
def test_text_is_burned_into_its_corner(corner: str, rows: slice, columns: slice) -> None:
    pixels = np.zeros((128, 128), np.uint16)
    burn_in(pixels, ("KIM", "77"), 4095, corner=corner)
    assert pixels[rows, columns].sum() == pixels.sum() == 4095 * (pixels > 0).sum() > 0


def test_text_that_is_too_long_is_cut_at_the_margin() -> None:
    pixels = np.zeros((64, 128), np.uint8)
    burn_in(pixels, ("W" * 50,), 255, corner="bottom left")
    assert pixels.any()
    assert not pixels[:, -8:].any()
