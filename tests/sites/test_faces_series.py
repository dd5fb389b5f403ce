"""Faces in DICOM series: from the files' own geometry, and back into exactly the pixels that change."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
from fedai_site.deidentify.faces import FaceFindings, Outcome, deface_series, defacing, may_show_head
from fedai_site.deidentify.faces.fitting import Head
from fedai_site.deidentify.faces.grid import Grid
from fedai_site.quarantine import Quarantine, Reason
from head_volumes import (
    EYES,
    NOSE,
    ch2,
    ch2_brain,
    chest,
    enhanced,
    flipped,
    index_of,
    knee,
    mean_head,
    pixels,
    series,
    slice_,
    stored,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

SPACING = 3.0
FACE_AT = (NOSE, *EYES)


FOUND: dict[tuple[Any, ...], Any] = {}


@pytest.fixture(autouse=True)
def the_same_head_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit takes seconds and gives the same for the same grid, which test_faces_volumes holds."""
    find = defacing.find_head

    def remembered(grid: Grid, modality: str) -> Head:
        key = (grid.values.tobytes(), grid.values.shape, grid.origin.tobytes(), grid.spacing, modality)
        if key not in FOUND:
            FOUND[key] = find(grid, modality)
        return FOUND[key]  # type: ignore[no-any-return]

    monkeypatch.setattr(defacing, "find_head", remembered)


@cache
def head(modality: str) -> tuple[Any, Any]:
    return mean_head(modality, SPACING)


def images(modality: str, **more: Any) -> list[Dataset]:
    return series(*head(modality), modality, **more)


def all_pixels(found: list[Dataset]) -> NDArray[Any]:
    return np.stack([pixels(image) for image in found])


def defaced(found: list[Dataset]) -> tuple[FaceFindings, NDArray[Any], NDArray[Any]]:
    """Findings, and all pixels before and after."""
    before = all_pixels(found)
    return deface_series(found), before, all_pixels(found)


@cache
def removed(modality: str) -> tuple[list[Dataset], FaceFindings, NDArray[Any], NDArray[Any]]:
    """The plain series without its face, made once: objects, findings, all pixels before and after."""
    found = images(modality)
    return found, *defaced(found)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_series_loses_its_face_and_nothing_else(modality: str) -> None:
    _, findings, before, after = removed(modality)
    affine = head(modality)[1]
    fill = 24 if modality == "CT" else before.min()
    changed = before != after
    assert findings.outcome is Outcome.REMOVED
    assert all(after[index_of(affine, place)] == fill for place in FACE_AT)
    assert (after[changed] == fill).all()
    assert changed.sum() <= findings.voxels_changed


def test_slices_without_a_changed_pixel_keep_their_bytes() -> None:
    found, untouched = removed("CT")[0], images("CT")
    same = [image.PixelData == old.PixelData for image, old in zip(found, untouched, strict=True)]
    assert all(same[-20:]), "the crown"
    assert not any(same[15:25]), "the nose"


def test_every_object_of_the_series_is_marked_and_only_then() -> None:
    assert not any("RecognizableVisualFeatures" in image for image in images("MR"))
    assert {image.RecognizableVisualFeatures for image in removed("MR")[0]} == {"NO"}


def test_the_order_of_the_objects_makes_no_difference() -> None:
    found = images("MR")
    shuffled = [found[number] for number in np.random.default_rng(1).permutation(len(found))]
    _, findings, _, after = removed("MR")
    assert deface_series(shuffled).voxels_changed == findings.voxels_changed
    assert np.array_equal(all_pixels(found), after)


def test_a_flipped_series_is_refused_unchanged() -> None:
    volume, affine = head("MR")
    found = series(volume, flipped(affine, 1), "MR")
    before = [image.PixelData for image in found]
    with pytest.raises(Quarantine, match="which way the head lies") as refused:
        deface_series(found)
    assert refused.value.reason is Reason.FACE_LEFT
    assert refused.value.picture
    assert [image.PixelData for image in found] == before
    assert not any("RecognizableVisualFeatures" in image for image in found)


def test_a_wrong_body_part_does_not_save_a_face() -> None:
    assert deface_series(images("CT", BodyPartExamined="KNEE")).outcome is Outcome.REMOVED
    volume, affine = head("CT")
    with pytest.raises(Quarantine, match="FACE_LEFT"):
        deface_series(series(volume, flipped(affine, 2), "CT", BodyPartExamined="CHEST"))


def test_slices_from_crown_to_chin_and_sagittal_ones_are_the_same_head() -> None:
    volume, affine = head("MR")
    turned = affine[:, [1, 2, 0, 3]]  # columns run to the back, rows up, slices to the left
    found = series(np.ascontiguousarray(volume.transpose(2, 0, 1)), turned, "MR")
    findings, _, after = defaced(found)
    assert findings.outcome is Outcome.REMOVED
    for place in FACE_AT:
        z, y, x = index_of(affine, place)
        assert after[x, z, y] == after.min()


def test_one_enhanced_object_with_all_slices() -> None:
    image = enhanced(*head("MR"))
    before = pixels(image)
    findings = deface_series([image])
    after = pixels(image)
    assert findings.outcome is Outcome.REMOVED
    assert image.RecognizableVisualFeatures == "NO"
    assert all(after[index_of(head("MR")[1], place)] == before.min() for place in FACE_AT)


def test_several_volumes_in_one_series_all_lose_their_face() -> None:
    volume, affine = head("MR")
    found = series(volume, affine, "MR")
    for image in series(volume * 0.7, affine, "MR"):
        image.SOPInstanceUID += ".7"
        image.InstanceNumber += 1000
        found.append(image)
    findings, _, after = defaced(found)
    count = len(volume)
    z, y, x = index_of(affine, NOSE)
    assert findings.outcome is Outcome.REMOVED
    assert after[z, y, x] == after[count + z, y, x] == after.min()


@pytest.mark.slow
def test_uneven_gaps_and_a_slice_twice() -> None:
    found = images("CT")
    thinned = found[:40] + found[40::2] + [copy.deepcopy(found[30])]
    findings = deface_series(thinned)
    assert findings.outcome is Outcome.REMOVED
    z, y, x = index_of(head("CT")[1], EYES[0])
    assert pixels(found[z])[y, x] == 24


@pytest.mark.slow
def test_a_tilted_gantry() -> None:
    volume, affine = head("CT")
    shear = affine.copy()
    shear[1, 2] = -0.25 * SPACING  # each slice lies further to the front than the one below
    z = (np.arange(len(volume)) * 0.25).round().astype(int)
    sheared = np.stack([np.roll(part, shift, axis=0) for part, shift in zip(volume, z, strict=True)])
    findings = deface_series(series(sheared, shear, "CT"))
    assert findings.outcome is Outcome.REMOVED


@pytest.mark.slow
def test_signed_values_with_a_slope() -> None:
    volume, affine = head("CT")
    values = np.rint(volume / 2).astype(np.int16)
    found = [
        slice_(part.view(np.uint16), affine, number, "CT", PixelRepresentation=1, BitsStored=16, HighBit=15,
               RescaleSlope=2.0, RescaleIntercept=0.0)
        for number, part in enumerate(values)
    ]  # fmt: skip
    deface_series(found)
    z, y, x = index_of(affine, NOSE)
    assert pixels(found[z])[y, x] == -500


@pytest.mark.slow
def test_a_ct_without_its_rescale_intercept_is_no_way_around() -> None:
    found = images("CT", RescaleIntercept=None, RescaleSlope=None)
    try:
        findings, before, after = defaced(found)
    except Quarantine:
        return
    assert findings.outcome is Outcome.REMOVED
    assert after[index_of(head("CT")[1], NOSE)] == before.min()


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, ExplicitVRBigEndian])
def test_compressed_slices_stay_as_they_are_where_nothing_changes(syntax: Any) -> None:
    found = images("MR")
    for image in found:
        if syntax.is_compressed:
            image.compress(syntax, generate_instance_uid=False)
        else:
            image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
            image.file_meta.TransferSyntaxUID = syntax
            image.set_original_encoding(False, False)
    before, data = [image.pixel_array for image in found], [image.PixelData for image in found]
    assert deface_series(found).outcome is Outcome.REMOVED
    for image, old, value in zip(found, before, data, strict=True):
        new = image.pixel_array
        assert (image.PixelData == value) == np.array_equal(new, old)
        assert set(np.unique(new[new != old])) <= {min(part.min() for part in before)}


@pytest.mark.parametrize("count", [1, 4])
def test_single_images_are_left_alone_and_nothing_is_claimed(count: int) -> None:
    found = images("MR")[20 : 20 + count]
    findings, before, after = defaced(found)
    assert findings.outcome is Outcome.TOO_THIN
    assert np.array_equal(before, after)
    assert not any("RecognizableVisualFeatures" in image for image in found)


def test_a_thin_slab_is_left_alone() -> None:
    assert deface_series(images("MR")[20:32]).outcome is Outcome.TOO_THIN


@pytest.mark.slow
def test_half_a_head_without_enough_brain_is_refused() -> None:
    with pytest.raises(Quarantine, match="FACE_LEFT"):
        deface_series(images("CT", BodyPartExamined="HEAD")[:26])


@pytest.mark.parametrize("more", [{}, {"BodyPartExamined": "CHEST"}])
def test_a_trunk_is_no_head(more: dict[str, str]) -> None:
    found = series(*chest(), "CT", **more)
    findings, before, after = defaced(found)
    assert findings.outcome is Outcome.NO_HEAD
    assert findings.seconds < 0.5
    assert np.array_equal(before, after)
    assert not any("RecognizableVisualFeatures" in image for image in found)


@pytest.mark.slow
def test_a_knee_is_none_if_it_says_so_and_uncertain_if_not() -> None:
    assert deface_series(series(*knee(), "MR", BodyPartExamined="KNEE")).outcome is Outcome.NO_HEAD
    with pytest.raises(Quarantine, match="FACE_LEFT"):
        deface_series(series(*knee(), "MR"))


@pytest.mark.slow
def test_a_chest_that_says_it_is_a_head_is_refused() -> None:
    with pytest.raises(Quarantine, match="FACE_LEFT"):
        deface_series(series(*chest(), "CT", BodyPartExamined="HEAD"))


@pytest.mark.parametrize("lost", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_slices_that_do_not_say_where_they_lie_are_refused(lost: str) -> None:
    with pytest.raises(Quarantine, match="where its slices lie"):
        deface_series(images("MR", **{lost: None}))


@pytest.mark.parametrize(
    "spoilt",
    [
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"PixelSpacing": [0, 0]},
        {"PixelSpacing": [1e9, 1e9]},
        {"PixelSpacing": [1e-7, 1e-7]},
        {"ImagePositionPatient": [1e30, 0, 0]},
    ],
)
def test_senseless_geometry_is_refused_or_too_thin_and_never_a_crash(spoilt: dict[str, Any]) -> None:
    found = images("MR", **spoilt)
    try:
        outcome: Any = not deface_series(found).claims_no_face
    except Quarantine as refused:
        outcome = refused.reason
    assert outcome in (True, Reason.FACE_LEFT)


def test_mosaics_and_rendered_pictures_are_refused() -> None:
    image = images("MR", ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])[0]
    with pytest.raises(Quarantine, match="tiles"):
        deface_series([image])
    image = images("CT", ImageType=["DERIVED", "SECONDARY", "VRT"])[0]
    with pytest.raises(Quarantine, match="rendered"):
        deface_series([image])


def test_a_scout_in_the_series_does_not_disturb_it_and_is_not_marked() -> None:
    found = images("CT")
    scout = images("CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])[0]
    scout.SOPInstanceUID, scout.ImageOrientationPatient = "1.2.3.999", [0, 1, 0, 0, 0, -1]
    assert deface_series([scout, *found]).outcome is Outcome.REMOVED
    assert "RecognizableVisualFeatures" not in scout


def test_missing_slices_are_refused() -> None:
    found = images("CT")
    with pytest.raises(Quarantine, match="slices are missing"):
        deface_series(found[:20] + found[40:])


def test_pixels_that_cannot_be_decoded_are_refused() -> None:
    found = images("MR")
    found[30].PixelData = found[30].PixelData[:100]
    with pytest.raises(Quarantine, match=r"PIXELS_NOT_EXAMINED|FACE_LEFT"):
        deface_series(found)


def test_colours_are_refused() -> None:
    volume, affine = head("MR")
    values, _ = stored(volume // 4, "MR")
    found = series(volume, affine, "MR", SamplesPerPixel=3, PhotometricInterpretation="RGB",
                   PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7)  # fmt: skip
    for image, part in zip(found, values, strict=True):
        image.PixelData = np.repeat(part.astype(np.uint8)[..., None], 3, axis=-1).tobytes()
    with pytest.raises(Quarantine, match="colours"):
        deface_series(found)


def test_an_empty_series_shows_no_head() -> None:
    assert deface_series([]).outcome is Outcome.NO_HEAD


def test_kinds_of_objects_that_may_show_a_head() -> None:
    image = images("CT", BodyPartExamined="FOOT")[0]
    assert may_show_head(image), "body parts are mislabelled"
    del image.PixelData
    assert not may_show_head(image)
    radiograph = Dataset()
    radiograph.SOPClassUID, radiograph.Modality = "1.2.840.10008.5.1.4.1.1.1", "CR"
    radiograph.PixelData = b"\0\0"
    assert not may_show_head(radiograph)
    assert not may_show_head(Dataset())


def test_the_real_head_as_dicom_loses_its_face_and_none_of_its_brain() -> None:
    volume, affine = ch2()
    findings, before, after = defaced(series(volume, affine, "MR"))
    changed = before != after
    assert findings.outcome is Outcome.REMOVED
    assert not (changed & ch2_brain()).any()
    assert after[index_of(affine, (0.0, -85.0, -55.0))] == 0
