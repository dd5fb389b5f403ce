"""The detector looks where there is something to see, and as well there as if it looked everywhere."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from burned_text import NAME, NUMBER, anatomy, ink
from fedai_site.deidentify.pixels.boxes import boxes_of, covered
from fedai_site.deidentify.pixels.detector import (
    BLOCK,
    TILE,
    WEIGHTS,
    Detector,
    all_sizes,
    detector,
    hints,
    parts,
    uneven,
)
from fedai_site.deidentify.pixels.views import distinct
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

SHAPE = (240, 320)
TEXT = ink(SHAPE, NAME, 8, 10) | ink(SHAPE, NUMBER, 214, 130)


def page(text: NDArray[np.bool_] = TEXT) -> NDArray[np.float32]:
    picture = np.round(anatomy(*SHAPE) * 200).astype(np.float32)
    picture[text] = 240
    return picture


def test_the_weights_are_those_of_the_card() -> None:
    assert sha256(WEIGHTS.read_bytes()).hexdigest() in WEIGHTS.with_name("CARD.md").read_text("utf-8")


def test_weights_that_are_not_complete_are_refused(tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(WEIGHTS)
    weights.pop("head.weight")
    save_file(weights, tmp_path / "some.safetensors")
    with pytest.raises(ValueError, match="not complete"):
        Detector(tmp_path / "some.safetensors")


def test_the_folded_network_says_what_the_trained_one_says() -> None:
    import torch
    from fedai_site.deidentify.pixels.network import TextNetwork, folded

    torch.manual_seed(0)
    network = TextNetwork().eval()
    for name, values in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            values.uniform_(0.5, 1.5)
    with torch.inference_mode():
        pictures = torch.rand(1, 1, 64, 96) * 255
        before = network(pictures)
        assert torch.allclose(folded(network)(pictures), before, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1, 40, 33), (1, 1, 5, 64)])
def test_the_local_mean_is_the_mean_of_the_pixels_around(shape: tuple[int, ...]) -> None:
    import torch
    from fedai_site.deidentify.pixels.network import NEIGHBOURHOOD, local_mean

    pictures = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, shape)).float()
    wanted = torch.nn.functional.avg_pool2d(
        pictures, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False
    )
    assert torch.allclose(local_mean(local_mean(pictures, 2), 3), wanted, atol=0.01)


def test_a_flat_picture_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr(Detector, "_one", lambda _, picture: looked.append(picture.shape))
    assert detector().boxes(np.full((300, 200), 7, np.float32), (1.0, 2.0, 0.5)) == []
    assert looked == []


def test_wide_black_margins_cost_nothing_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.zeros((640, 800), np.float32)
    wide[:240, :320] = page()
    pixels = []
    one = Detector._one
    monkeypatch.setattr(Detector, "_one", lambda self, part: (pixels.append(part.size), one(self, part))[1])
    found = covered(detector().boxes(wide), wide.shape)
    assert found[:240, :320][TEXT].mean() > 0.98
    assert not found[320:].any()
    assert sum(pixels) < 0.3 * wide.size


def test_a_closer_look_at_parts_finds_what_a_closer_look_at_all_finds() -> None:
    small = ink(SHAPE, NUMBER, 100, 40, dots=1)
    picture = page(small)
    everywhere = np.ones((-(-SHAPE[0] // BLOCK), -(-SHAPE[1] // BLOCK)), bool)
    whole = detector().chance(picture, 2.0, everywhere)
    part = detector().chance(picture, 2.0, hints(detector().chance(picture), 1.0))
    cells = small.reshape(120, 2, 160, 2).any((1, 3))
    assert whole[cells].mean() > 0.8
    assert np.abs(whole - part)[cells].mean() < 0.05


@settings(max_examples=60, deadline=None)
@given(
    arrays(bool, st.tuples(st.integers(1, 50), st.integers(1, 50))), st.integers(0, 31), st.integers(0, 31)
)
def test_parts_hold_every_block_and_stay_within_the_picture(
    blocks: NDArray[np.bool_], less_rows: int, less_columns: int
) -> None:
    rows, columns = blocks.shape[0] * BLOCK - less_rows, blocks.shape[1] * BLOCK - less_columns
    found = list(parts(blocks, rows, columns))
    assert all(0 <= a < c <= rows and 0 <= b < d <= columns for a, b, c, d in found)
    assert all(c - a <= TILE and d - b <= TILE and a % BLOCK == b % BLOCK == 0 for a, b, c, d in found)
    wanted = np.kron(blocks, np.ones((BLOCK, BLOCK), bool))[:rows, :columns]
    assert not (wanted & ~covered(found, (rows, columns))).any()


def test_a_block_is_flat_only_if_nothing_in_it_is_visible() -> None:
    picture = np.full((70, 40), 100, np.float32)
    picture[66, 39] = 104
    assert uneven(picture).tolist() == [[False, False], [False, False], [False, True]]


def test_the_part_of_a_line_that_is_too_faint_is_covered_with_the_rest() -> None:
    chance = np.zeros((40, 80), np.float32)
    chance[10:14, 20:40] = 0.9
    chance[11, 42:55] = 0.08
    chance[12, 70:75] = 0.08
    mask = covered(boxes_of(chance, 4, (160, 320)), (160, 320))
    assert mask[40:56, 80:220].all()
    assert not mask[:, 280:].any()
    upright = covered(boxes_of(np.ascontiguousarray(chance.T), 4, (320, 160)), (320, 160))
    assert np.array_equal(upright.T, mask)


def test_a_block_that_is_no_line_does_not_go_on() -> None:
    chance = np.zeros((40, 80), np.float32)
    chance[10:20, 20:30] = 0.9
    alone = boxes_of(chance, 4, (160, 320))
    chance[12, 31:60] = 0.2
    assert boxes_of(chance, 4, (160, 320)) == alone


def test_a_full_look_finds_the_same_in_a_picture_and_in_its_negative() -> None:
    picture = np.round(anatomy(*SHAPE) * 200).astype(np.float32)
    picture[TEXT] += 25
    found = detector().boxes(picture, (1.0, 2.0))
    assert found == detector().boxes(255 - picture, (1.0, 2.0))
    assert covered(found, SHAPE)[TEXT].mean() > 0.9


def test_what_is_blank_already_does_not_count_as_text_left() -> None:
    picture = page()
    found = detector().boxes(picture)
    assert covered(found, SHAPE)[TEXT].mean() > 0.98
    assert detector().boxes(picture, blank=np.ones(SHAPE, bool)) == []
    assert detector().boxes(picture, blank=np.zeros(SHAPE, bool)) == found


@pytest.mark.parametrize("shape", [(245, 331), (101, 64), (33, 1027)])
def test_pictures_of_any_size_can_be_looked_at(shape: tuple[int, int]) -> None:
    letters = ink(shape, "ID 12", shape[0] - 17, shape[1] - 61)
    picture = np.where(letters, np.float32(240), np.float32(10))
    found = detector().boxes(picture, (1.0, 2.0, 0.5, 0.25), blank=np.zeros(shape, bool))
    assert covered(found, shape)[letters].mean() > 0.98
    assert all(0 <= a < c <= shape[0] and 0 <= b < d <= shape[1] for a, b, c, d in found)


def test_large_print_is_found_in_a_reduced_picture() -> None:
    picture = np.round(anatomy(480, 640) * 200).astype(np.float32)
    letters = ink((480, 640), "HONG", 150, 60, dots=14)
    picture[letters] = 240
    found = detector().boxes(picture, all_sizes(480, 640))
    assert covered(found, (480, 640))[letters].mean() > 0.9


def test_windows_that_show_the_same_are_looked_at_once() -> None:
    picture = page()
    faint = picture.copy()
    faint[100:104, 100:130] += 20
    assert [number for number, _ in distinct([picture, picture + 3, faint, picture])] == [0, 2]
