"""Boxes cover what was found, tightly; devices' regions and the gate follow the header."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_files import radiograph
from fedai_site.deidentify.pixels.blanking import blanked
from fedai_site.deidentify.pixels.boxes import boxes_of, covered, merged, rectangles
from fedai_site.deidentify.pixels.facts import Gate, PixelFacts
from fedai_site.deidentify.pixels.picture import png
from fedai_site.deidentify.pixels.regions import always, catalogue, outside, strips
from fedai_site.deidentify.pixels.views import views
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

CT, MR, SECONDARY, ULTRASOUND = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.6.1",
)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24))))
def test_rectangles_cover_every_cell(mask: np.ndarray) -> None:
    assert not (mask & ~covered(rectangles(mask), mask.shape)).any()


def test_a_line_along_two_edges_is_not_one_big_box() -> None:
    mask = np.zeros((64, 64), bool)
    mask[:3], mask[:, :3] = True, True
    assert covered(rectangles(mask), mask.shape).mean() < 0.25


def test_a_faint_or_tiny_group_is_not_text_and_a_sure_one_is_with_a_margin() -> None:
    chance = np.zeros((40, 40), np.float32)
    chance[2:5, 2:20] = 0.5
    chance[20, 20] = 0.99
    assert boxes_of(chance, 4, (160, 160)) == []
    chance[3, 8] = 0.97
    (box,) = boxes_of(chance, 4, (160, 160))
    assert box[0] < 8
    assert box[1] < 8
    assert box[2] > 20
    assert box[3] > 80


def test_boxes_within_others_are_left_out_and_the_order_does_not_matter() -> None:
    boxes = [(0, 0, 10, 10), (2, 2, 5, 5), (0, 0, 10, 10), (8, 8, 12, 12)]
    assert merged(boxes) == merged(reversed(boxes)) == [(0, 0, 10, 10), (8, 8, 12, 12)]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_a_box_is_filled_with_a_value_from_around_it(kind: type) -> None:
    stored = np.random.default_rng(0).integers(0, 100, (30, 40)).astype(kind)
    stored[10:15, 10:30] = 120
    filled = blanked(stored, [(9, 9, 16, 31)], "MONOCHROME2", None)
    assert filled.dtype == stored.dtype
    assert len(np.unique(filled[9:16, 9:31])) == 1
    assert filled[12, 12] in np.unique(stored[stored < 100])
    hidden = covered([(9, 9, 16, 31)], stored.shape)
    assert np.array_equal(filled[~hidden], stored[~hidden])


def test_padding_is_not_background_unless_there_is_nothing_else() -> None:
    stored = np.full((30, 40), -2000, np.int16)
    stored[:, 26:] = 37
    assert blanked(stored, [(8, 8, 20, 24)], "MONOCHROME2", -2000)[10, 10] == 37
    assert blanked(stored, [(8, 2, 20, 12)], "MONOCHROME2", -2000)[10, 5] == -2000


GATES = [
    (CT, ["ORIGINAL", "PRIMARY", "AXIAL"], None, Gate.FAST),
    (MR, ["ORIGINAL", "PRIMARY", "OTHER"], "NO", Gate.FAST),
    (CT, ["ORIGINAL", "PRIMARY", "AXIAL"], "YES", Gate.FULL),
    (CT, ["DERIVED", "SECONDARY", "SCREEN SAVE"], "NO", Gate.FULL),
    (CT, ["DERIVED", "PRIMARY", "AXIAL"], None, Gate.FULL),
    (CT, ["ORIGINAL", "PRIMARY", "LOCALIZER"], None, Gate.FULL),
    (CT, None, None, Gate.FULL),
    (SECONDARY, ["ORIGINAL", "PRIMARY"], "NO", Gate.FULL),
    (ULTRASOUND, ["ORIGINAL", "PRIMARY"], "NO", Gate.FULL),
    ("1.2.3.4", ["ORIGINAL", "PRIMARY"], "NO", Gate.FULL),
]


@pytest.mark.parametrize(("sop_class", "image_type", "annotation", "wanted"), GATES)
def test_only_original_primary_slices_get_the_fast_pass(
    sop_class: str, image_type: list[str] | None, annotation: str | None, wanted: Gate
) -> None:
    dataset = radiograph(SOPClassUID=sop_class, ImageType=image_type)
    if annotation:
        dataset.BurnedInAnnotation = annotation
    assert PixelFacts.of(dataset).gate()[0] is wanted


def test_a_converted_ct_gets_the_full_pass() -> None:
    dataset = radiograph(SOPClassUID=CT, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], ConversionType="WSD")
    assert PixelFacts.of(dataset).gate()[0] is Gate.FULL


def region(top: int, left: int, bottom: int, right: int) -> Dataset:
    item = Dataset()
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right - 1, bottom - 1
    return item


def test_what_lies_outside_the_ultrasound_regions_is_blanked_once_text_is_found_there() -> None:
    dataset = radiograph(SOPClassUID=ULTRASOUND, Modality="US")
    dataset.SequenceOfUltrasoundRegions = Sequence([region(40, 10, 90, 100), region(60, 110, 80, 150)])
    facts = PixelFacts.of(dataset)
    assert outside(facts, [(50, 20, 60, 60)], 100, 160) == []
    mask = covered(outside(facts, [(2, 2, 12, 60)], 100, 160), (100, 160))
    assert not mask[40:90, 10:100].any()
    assert not mask[60:80, 110:150].any()
    assert mask.sum() == 100 * 160 - 50 * 90 - 20 * 40


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-5, 60)] * 4), min_size=1, max_size=4))
def test_strips_and_regions_share_the_picture(corners: list[tuple[int, int, int, int]]) -> None:
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    boxes = tuple((max(0, a), max(0, b), max(0, c), max(0, d)) for a, b, c, d in boxes)
    inside, rest = covered(boxes, (50, 50)), covered(strips(boxes, 50, 50), (50, 50))
    assert not (inside & rest).any()
    assert (inside | rest).all()


def test_the_catalogue_of_devices_says_why_and_matches_by_maker() -> None:
    assert all(device.why for device in catalogue())
    philips = PixelFacts(modality="US", manufacturer="PHILIPS MEDICAL SYSTEMS")
    assert always(philips, 600, 800) == [(0, 0, 45, 800)]
    assert always(PixelFacts(modality="CT", manufacturer="PHILIPS"), 512, 512) == []


def test_text_in_a_narrow_band_of_values_is_visible_in_some_view() -> None:
    stored = np.random.default_rng(0).integers(0, 40, (64, 64)).astype(np.uint16)
    stored[20:30, 10:50] += 60
    stored[0, 0] = 65535
    contrasts = [
        float(view[20:30, 10:50].mean() - view[40:60].mean())
        for view in views(stored, "MONOCHROME2", Dataset(), thorough=True)
    ]
    assert contrasts[0] < 1
    assert max(contrasts) > 60


def test_a_flat_frame_has_nothing_to_show() -> None:
    assert list(views(np.full((8, 8), 700, np.int16), "MONOCHROME2", Dataset(), thorough=True)) == []


def test_the_picture_for_review_is_a_png() -> None:
    data = png(np.zeros((20, 30), np.float32), [(2, 3, 9, 12), (15, 25, 20, 30)])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")
