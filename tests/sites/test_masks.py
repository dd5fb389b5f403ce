from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from burned_text import NAME, anatomy, image, ink
from dicom_files import radiograph, save
from fedai_site.adding import Added, add_data
from fedai_site.catalogue import Catalogue
from fedai_site.data_views import shown
from fedai_site.deidentify import create_secret
from fedai_site.deidentify.contours import inside
from fedai_site.masks import ADDED, Mask, Masks, parse_structures, read_labels
from mask_files import FRAME, circle, segmentation, slice_of, square, structure_set
from pydicom.dataset import Dataset

from fedai.errors import ConfigError

NAMES = {"GTV-1": "lesion", "Lung Hong": "lung"}
SPACED = {"PixelSpacing": [0.2, 0.3]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "keys").mkdir(parents=True)
    create_secret(tmp_path / "home" / "keys" / "pseudonym.key")
    return tmp_path / "home"


def add(home: Path, *objects: Dataset, names: dict[str, str] = NAMES, pixels: bool = False) -> Added:
    """Put the objects into the export, beside those of before, and add it."""
    for item in objects:
        save(item, home.parent / "export" / f"{item.SOPInstanceUID}.dcm")
    return add_data(home, home.parent / "export", None, structures=names, pixels=pixels)


def masks_of(home: Path) -> dict[str, Mask]:
    with Masks(home / "catalogue.sqlite") as masks:
        return masks.all()


def only(home: Path) -> tuple[Mask, np.ndarray]:
    (mask,) = masks_of(home).values()
    return mask, read_labels(home / mask.path)


def balanced(added: Added) -> bool:
    parts = (added.written, added.already, added.duplicates, added.masks, sum(added.quarantined.values()))
    return added.found == sum(parts)


def test_a_binary_segmentation_becomes_a_mask_of_each_image_that_its_frames_refer_to(home: Path) -> None:
    images = [radiograph(n, "HONG1", 19, 13, **SPACED) for n in range(3)]
    drawn = [square(19, 13), square(19, 13, at=2, size=9)]
    added = add(home, *images, segmentation([(images[0], "GTV-1", drawn[0]), (images[2], "GTV-1", drawn[1])]))
    assert (added.written, added.masks, added.masked, added.quarantined) == (3, 1, 2, {})
    assert balanced(added)
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        entries = {entry.id: entry for entry in catalogue.labelled()}
    found = {mask.image: read_labels(home / mask.path) for mask in masks_of(home).values()}
    assert set(found) < set(entries)
    assert sorted(labels.sum() for labels in found.values()) == sorted(mask.sum() for mask in drawn)
    for mask in masks_of(home).values():
        assert mask.patient == entries[mask.image].patient
        assert (mask.size, mask.spacing) == ((19, 13), (0.2, 0.3))
        assert (mask.structures, mask.present) == (("lesion",), ("lesion",))
        assert [kind for kind, _ in mask.sources.values()] == ["SEG"]


def test_a_fractional_segmentation_is_cut_at_a_half_and_structures_lie_side_by_side(home: Path) -> None:
    image = radiograph(1, "HONG1", 19, 13, **SPACED)
    lesion = np.linspace(0, 1, 19 * 13).reshape(19, 13)
    lung = square(19, 13, at=1, size=3) * 0.9
    drawn = [(image, "GTV-1", lesion), (image, "Lung Hong", lung), (image, "Heart", lung)]
    assert add(home, image, segmentation(drawn, fractional=True)).masks == 1
    mask, labels = only(home)
    assert mask.structures == ("lesion", "lung")
    assert np.array_equal(labels == 1, np.rint(lesion * 200) >= 100)
    assert np.array_equal(labels == 2, lung > 0)


def test_a_frame_without_a_pixel_is_an_empty_mask_that_speaks_of_its_structures(home: Path) -> None:
    image = radiograph(1, "HONG1", 19, 13, **SPACED)
    add(home, image, segmentation([(image, "GTV-1", np.zeros((19, 13), np.bool_))]))
    mask, labels = only(home)
    assert (mask.structures, mask.present, labels.any()) == (("lesion",), (), np.False_)


def test_contours_in_mm_are_drawn_onto_the_grid_of_their_image(home: Path) -> None:
    turned = {"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]}
    images = [slice_of(0), slice_of(1, **turned)]
    drawn = [(images[0], circle(images[0], (4.0, 5.0), 2.6)), (images[0], circle(images[0], (4.0, 5.0), 1.1))]
    drawn += [(images[1], circle(images[1], (0.0, 5.0), 2.6))]
    added = add(home, *images, structure_set({"GTV-1": drawn, "BODY": drawn[:1]}))
    assert (added.masks, added.masked, added.quarantined) == (1, 2, {})
    rows, columns = np.indices((20, 17)) * 0.5
    away = np.hypot(columns - 4.0, rows - 5.0)
    ring = (away < 2.6) & ~(away < 1.1)
    x, y = 0.8 * columns - 0.6 * rows, 0.6 * columns + 0.8 * rows
    for mask in masks_of(home).values():
        labels = read_labels(home / mask.path)
        whole = np.hypot(x, y - 5.0) < 2.6
        assert any(np.array_equal(labels == 1, expected) for expected in (ring, whole))
        assert [kind for kind, _ in mask.sources.values()] == ["RTSTRUCT"]
    assert len({read_labels(home / mask.path).tobytes() for mask in masks_of(home).values()}) == 2


def test_a_polygon_holds_the_pixels_whose_centres_it_surrounds() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        a, b, c = rng.uniform(-3, 15, (3, 2))
        found = inside(np.array([a[0], b[0], c[0]]), np.array([a[1], b[1], c[1]]), (12, 12))
        centres = np.stack(np.indices((12, 12)), axis=-1)

        def side(p: np.ndarray, q: np.ndarray, centres: np.ndarray = centres) -> np.ndarray:
            away = centres - p
            return (q - p)[0] * away[..., 1] - (q - p)[1] * away[..., 0] > 0

        sides = np.stack([side(a, b), side(b, c), side(c, a)])
        assert np.array_equal(found, sides.all(axis=0) | ~sides.any(axis=0))


IMAGE = slice_of(0)
LESION = [(IMAGE, "GTV-1", square())]
OFF = circle(IMAGE, (4, 5), 2) + np.array([0, 0, 1.0])


@pytest.mark.parametrize(
    ("drawing", "reason"),
    [
        (segmentation([(IMAGE, "Heart", square())]), "SEGMENTATION"),
        (segmentation([(slice_of(7), "GTV-1", square())]), "MASK_WITHOUT_IMAGE"),
        (segmentation([(IMAGE, "GTV-1", square(17, 20))]), "MASK_MISFIT"),
        (segmentation(LESION, FrameOfReferenceUID="1.2.6.2"), "MASK_MISFIT"),
        (segmentation(LESION, PatientID="KIM2"), "MASK_MISFIT"),
        (segmentation(LESION, SegmentationType="LABELMAP"), "MASK_MISFIT"),
        (segmentation(LESION, SegmentSequence=None), "SEGMENTATION"),
        (segmentation(LESION, PerFrameFunctionalGroupsSequence=None), "MASK_MISFIT"),
        (segmentation(LESION, PixelData=b"1"), "PIXEL_SIZE"),
        (segmentation([*LESION, (IMAGE, "Lung Hong", square())]), "MASK_CONFLICT"),
        (segmentation([(slice_of(0, ImagePositionPatient=[0, 0, 9]), "GTV-1", square())]), "MASK_MISFIT"),
        (structure_set({"GTV-1": [(IMAGE, OFF)]}), "MASK_MISFIT"),
        (structure_set({"GTV-1": [(IMAGE, circle(IMAGE, (90, 90), 2))]}), "MASK_MISFIT"),
        (structure_set({"GTV-1": [(IMAGE, circle(IMAGE, (4, 5), 2)[:2])]}), "MASK_MISFIT"),
        (structure_set({"BODY": [(IMAGE, circle(IMAGE, (4, 5), 2))]}), "SEGMENTATION"),
        (
            structure_set({"GTV-1": [(IMAGE, circle(IMAGE, (4, 5), 2))]}, ROIContourSequence=None),
            "MASK_MISFIT",
        ),
    ],
)
def test_what_does_not_fit_is_quarantined_with_its_reason(home: Path, drawing: Dataset, reason: str) -> None:
    added = add(home, IMAGE, drawing)
    assert (added.written, added.masks, added.quarantined) == (1, 0, {reason: 1})
    assert balanced(added)
    assert masks_of(home) == {}
    assert not list((home / "masks").rglob("*.npy"))


@pytest.mark.parametrize("more", [{}, {"PixelSpacing": [0.2, 0.0]}])
def test_an_image_without_pixel_spacing_gets_no_mask(home: Path, more: dict[str, Any]) -> None:
    image = radiograph(1, "HONG1", 19, 13, **more)
    assert add(home, image, segmentation([(image, "GTV-1", square(19, 13))])).quarantined == {
        "MASK_MISFIT": 1
    }


SHAPE = (240, 320)
LETTERS = ink(SHAPE, NAME, 8, 10)
ORGAN = square(*SHAPE, at=90, size=60)


def written_on() -> Dataset:
    """A picture that lies in space, with a patient's name burned in."""
    pixels = np.round(anatomy(*SHAPE) * 200).astype(np.uint8)
    pixels[LETTERS] = 255
    place = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    return image(pixels, PixelSpacing=[0.2, 0.2], FrameOfReferenceUID=FRAME, **place)


def with_letters(kind: str = "SEG") -> Dataset:
    """Outlines of an organ and, as a structure, of the letters in the picture."""
    drawn = {"GTV-1": LETTERS, "Lung Hong": ORGAN}
    if kind == "SEG":
        return segmentation([(written_on(), name, mask) for name, mask in drawn.items()])
    return structure_set(
        {name: [(written_on(), one) for one in contours_around(mask)] for name, mask in drawn.items()}
    )


def contours_around(mask: np.ndarray) -> list[np.ndarray]:
    """A rectangle in mm around each run of pixels in a row."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(int), axis=1)
    runs = zip(np.argwhere(edges == 1), np.argwhere(edges == -1), strict=True)
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) - 0.5
    found = []
    for (row, start), (_, end) in runs:
        rows, columns = row + corners[:, 0], np.where(corners[:, 1] < 0, start, end) - 0.5
        found.append(np.stack([columns * 0.2, rows * 0.2, np.zeros(4)], axis=1))
    return found


def check_no_letter_is_left(home: Path) -> None:
    mask, labels = only(home)
    lesion, lung = (mask.structures.index(name) + 1 for name in ("lesion", "lung"))
    assert not (labels == lesion).any()
    assert not labels[LETTERS].any()
    assert np.array_equal(labels == lung, ORGAN)
    assert (mask.present, mask.cut) == (("lung",), int(LETTERS.sum()))
    assert mask.blanked
    (told,) = shown(home, mask.image)["images"]
    assert told["mask_pixels_cut"] == mask.cut


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_text_that_was_blanked_in_an_image_is_cut_out_of_what_outlines_its_letters(
    home: Path, kind: str
) -> None:
    added = add(home, written_on(), with_letters(kind), pixels=True)
    assert (added.written, added.masks, added.quarantined) == (1, 1, {})
    check_no_letter_is_left(home)


def test_outlines_of_letters_that_come_before_their_image_are_cut_all_the_same(home: Path) -> None:
    assert add(home, with_letters(), pixels=True).quarantined == {"MASK_WITHOUT_IMAGE": 1}
    assert add(home, written_on(), pixels=True).masks == 1
    check_no_letter_is_left(home)


@pytest.mark.parametrize("names", [NAMES, {}])
def test_a_mask_is_cut_when_its_image_is_cleaned_again_and_what_outlined_it_is_gone(
    home: Path, names: dict[str, str]
) -> None:
    drawing = with_letters()
    add(home, written_on(), drawing)
    mask, labels = only(home)
    assert (mask.blanked, mask.cut, bool(labels[LETTERS].all())) == ((), 0, True)
    (home.parent / "export" / f"{drawing.SOPInstanceUID}.dcm").unlink()
    add(home, names=names, pixels=True)
    check_no_letter_is_left(home)
    before = masks_of(home)
    add(home, names=names, pixels=True)
    assert masks_of(home) == before


def test_joining_a_second_object_keeps_what_was_cut_and_cuts_that_one_too(home: Path) -> None:
    add(home, written_on(), segmentation([(written_on(), "GTV-1", LETTERS)]), pixels=True)
    add(home, segmentation([(written_on(), "Lung Hong", LETTERS | ORGAN)], number=2), pixels=True)
    mask, labels = only(home)
    assert np.array_equal(labels > 0, ORGAN)
    assert (mask.present, mask.cut) == (("lung",), 2 * int(LETTERS.sum()))


def test_a_table_of_masks_that_an_earlier_release_made_is_kept(home: Path) -> None:
    add(home, IMAGE, segmentation(LESION))
    before = masks_of(home)
    with sqlite3.connect(home / "catalogue.sqlite") as database:
        for column in ADDED:
            database.execute(f"ALTER TABLE masks DROP COLUMN {column.partition(' ')[0]}")
    assert masks_of(home) == before
    assert add(home).masked == 1


def test_outlines_that_come_before_their_image_wait_for_it(home: Path) -> None:
    assert add(home, segmentation(LESION)).quarantined == {"MASK_WITHOUT_IMAGE": 1}
    added = add(home, IMAGE)
    assert (added.masks, added.masked, added.quarantined) == (1, 1, {})


def test_a_second_run_changes_nothing_and_keeps_masks_when_no_structure_is_named(home: Path) -> None:
    add(home, IMAGE, segmentation(LESION))
    before = masks_of(home)
    for names in (NAMES, {}):
        added = add(home, names=names)
        assert (added.already, added.masks, added.masked, added.quarantined) == (1, 1, 1, {})
        assert masks_of(home) == before


def test_files_of_one_structure_each_are_joined_and_a_second_reading_is_a_conflict(home: Path) -> None:
    lung = segmentation([(IMAGE, "Lung Hong", square(at=12, size=3))], number=2)
    again = segmentation([(IMAGE, "GTV-1", square(at=1, size=2))], number=3)
    added = add(home, IMAGE, segmentation(LESION), lung, again)
    assert (added.masks, added.quarantined) == (2, {"MASK_CONFLICT": 1})
    mask, labels = only(home)
    assert (set(mask.structures), len(mask.sources)) == ({"lesion", "lung"}, 2)
    assert set(np.unique(labels)) == {0, 1, 2}


def test_another_name_for_a_structure_takes_the_place_of_the_first(home: Path) -> None:
    add(home, IMAGE, segmentation(LESION))
    add(home, names={"GTV-1": "tumour"})
    mask, labels = only(home)
    assert (mask.structures, int(labels.sum())) == (("tumour",), int(square().sum()))


def test_a_mask_goes_with_its_image(home: Path) -> None:
    add(home, IMAGE, segmentation(LESION))
    (home.parent / "export" / f"{IMAGE.SOPInstanceUID}.dcm").unlink()
    claimed = slice_of(0, "KIM2")
    save(claimed, home.parent / "export" / "claimed.dcm")
    save(IMAGE, home.parent / "export" / "again.dcm")
    assert add(home).quarantined["UID_REUSED"] >= 2
    assert masks_of(home) == {}
    assert not list((home / "masks").rglob("*.npy"))


def test_no_word_of_an_outline_is_kept_but_the_structures_own_name(home: Path) -> None:
    add(home, IMAGE, segmentation(LESION, ContentCreatorName="Kim^Reader", SeriesDescription="Hong GTV"))
    add(home, slice_of(1), structure_set({"GTV-1": [(slice_of(1), circle(slice_of(1), (4, 5), 2))]}))
    with sqlite3.connect(home / "catalogue.sqlite") as database:
        kept = database.execute("SELECT * FROM masks").fetchall()
    assert len(kept) == 2
    for word in ("GTV", "Hong", "Kim", "1.2.3.", "1.2.7."):
        assert word not in str(kept)
        files = [path for path in (home / "masks").rglob("*") if path.is_file()]
        assert not [path for path in files if word.encode() in path.read_bytes() or word in str(path.name)]


@pytest.mark.parametrize("word", ["lesion", "=lesion", "GTV=", "GTV=a lesion", "GTV-1=l/.."])
def test_a_structure_is_named_by_two_names(word: str) -> None:
    with pytest.raises(ConfigError, match="--structure"):
        parse_structures([word])


def test_a_name_with_an_equals_sign_is_read_to_its_last() -> None:
    assert parse_structures(["GTV=1=lesion", " b =lung"]) == {"GTV=1": "lesion", "b": "lung"}
