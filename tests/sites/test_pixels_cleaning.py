"""Text burned into pixels is gone from what is written, and nothing else is changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from burned_text import (
    CT,
    NAME,
    NUMBER,
    ULTRASOUND,
    ULTRASOUND_MULTIFRAME,
    anatomy,
    by_gdcm,
    image,
    ink,
    reread,
    traces,
)
from dicom_files import encode, parse
from fedai_site.deidentify.pixels import PixelFacts, PixelFindings, clean_pixels
from fedai_site.deidentify.pixels.boxes import covered
from fedai_site.quarantine import Quarantine, Reason
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless

SHAPE = (240, 320)
TEXT = ink(SHAPE, NAME, 8, 10) | ink(SHAPE, NUMBER, 214, 130)
BODY = anatomy(*SHAPE)
ORIGINAL_CT = {"SOPClassUID": CT, "Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}


def grey(low: float, high: float, kind: type, text: float | None = None) -> NDArray[Any]:
    """The body over low..high as stored values, with the text in its own value (default: the highest)."""
    picture = low + BODY * (high - low) * 0.8
    picture[TEXT] = high if text is None else text
    return np.round(picture).astype(kind)


def colour(low: float = 0, high: float = 255) -> NDArray[Any]:
    return np.stack(
        [grey(low, high, np.uint8), grey(low, high * 0.9, np.uint8), grey(low, high * 0.4, np.uint8)], -1
    )


def palette() -> Dataset:
    dataset = image(grey(0, 250, np.uint8), PhotometricInterpretation="PALETTE COLOR")
    ramp = (np.arange(256) * 257).astype("<u2").tobytes()
    for name in ("Red", "Green", "Blue"):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{name}PaletteColorLookupTableData", ramp)
    return dataset


def subsampled() -> Dataset:
    dataset = image(np.zeros((*SHAPE, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422")
    packed = np.full((SHAPE[0], SHAPE[1] // 2, 4), 128, np.uint8)
    packed[..., :2] = grey(0, 255, np.uint8).reshape(SHAPE[0], -1, 2)
    dataset.PixelData = packed.tobytes()
    return dataset


def cine() -> Dataset:
    rng = np.random.default_rng(3)
    frames = np.stack(
        [np.clip(grey(0, 250, np.int64) + rng.integers(-4, 5, SHAPE), 0, 255) for _ in range(5)]
    )
    frames[:, TEXT] = 250
    more = {"SOPClassUID": ULTRASOUND_MULTIFRAME, "Modality": "US", "NumberOfFrames": 5}
    return image(frames.astype(np.uint8), **more)


OBJECTS: dict[str, Callable[[], Dataset]] = {
    "8 bits": lambda: image(grey(0, 255, np.uint8)),
    "dark text": lambda: image(255 - grey(0, 255, np.uint8)),
    "12 bits": lambda: image(grey(0, 4095, np.uint16), BitsStored=12, HighBit=11),
    "16 bits signed CT": lambda: image(grey(-1000, 1500, np.int16, 3071), **ORIGINAL_CT),
    "text at the lowest value": lambda: image(grey(200, 3000, np.uint16, 0), BitsStored=12, HighBit=11),
    "MONOCHROME1": lambda: image(grey(0, 4095, np.uint16), PhotometricInterpretation="MONOCHROME1"),
    "RGB": lambda: image(colour()),
    "RGB in planes": lambda: image(colour(), PlanarConfiguration=1),
    "YBR_FULL": lambda: image(
        np.stack([grey(0, 255, np.uint8), *[np.full(SHAPE, 128, np.uint8)] * 2], -1),
        PhotometricInterpretation="YBR_FULL",
    ),
    "YBR_FULL_422": subsampled,
    "palette": palette,
    "several frames": cine,
    "ultrasound": lambda: image(grey(0, 255, np.uint8), SOPClassUID=ULTRASOUND, Modality="US"),
}


def clean(dataset: Dataset) -> tuple[PixelFindings, Dataset]:
    findings = clean_pixels(dataset, PixelFacts.of(dataset))
    return findings, parse(encode(dataset, dataset.file_meta.TransferSyntaxUID))


def check(before: Dataset, findings: PixelFindings, after: Dataset) -> None:
    """The letters are gone from every frame, and outside of the boxes every pixel is what it was."""
    shape = (3,) if before.SamplesPerPixel == 3 else ()
    frames = [data.pixel_array.reshape(-1, *SHAPE, *shape) for data in (before, after)]
    for old, new, boxes in zip(*frames, findings.boxes, strict=True):
        hidden = covered(boxes, SHAPE)
        assert traces(old, TEXT) > 0.5
        assert hidden[TEXT].mean() > 0.98
        assert traces(new, TEXT) < 0.15
        assert hidden.mean() < 0.4
        if before.PhotometricInterpretation == "YBR_FULL_422":
            hidden |= np.roll(hidden, 1, 1) | np.roll(hidden, -1, 1)
        assert np.array_equal(old[~hidden], new[~hidden])
    assert findings.clean
    assert after.BurnedInAnnotation == "NO"


@pytest.mark.parametrize("name", OBJECTS)
def test_text_is_gone_from_every_kind_of_pixel(name: str) -> None:
    before = reread(OBJECTS[name]())
    check(before, *clean(reread(OBJECTS[name]())))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("name", ["8 bits", "16 bits signed CT", "RGB", "several frames"])
def test_text_is_gone_from_compressed_pixels_which_stay_compressed(name: str, syntax: Any) -> None:
    before = reread(OBJECTS[name](), syntax)
    findings, after = clean(reread(OBJECTS[name](), syntax))
    check(before, findings, after)
    assert after.file_meta.TransferSyntaxUID == syntax
    assert findings.encoding == "re-encoded"


@pytest.mark.parametrize("kind", ["JPEGBaselineProcess1", "JPEGLosslessProcess14_1"])
@pytest.mark.parametrize("name", ["8 bits", "RGB"])
def test_text_is_gone_from_jpeg_which_becomes_native(name: str, kind: str, tmp_path: Path) -> None:
    before = by_gdcm(OBJECTS[name](), kind, tmp_path)
    findings, after = clean(by_gdcm(OBJECTS[name](), kind, tmp_path))
    check(before, findings, after)
    assert findings.encoding == "native"


@pytest.mark.parametrize("contrast", [20, 40])
def test_faint_text_is_found(contrast: int) -> None:
    pixels = (40 + BODY * 100).astype(np.uint8)
    pixels[TEXT] += np.uint8(contrast)
    before = reread(image(pixels))
    findings, after = clean(reread(image(pixels)))
    assert covered(findings.boxes[0], SHAPE)[TEXT].mean() > 0.9
    assert traces(after.pixel_array, TEXT) < 0.15 < traces(before.pixel_array, TEXT)


@pytest.mark.parametrize("more", [{}, ORIGINAL_CT], ids=["full pass", "fast pass"])
def test_an_image_without_text_keeps_every_byte(more: dict[str, Any]) -> None:
    dataset = reread(image((BODY * 3000).astype(np.int16) - 1000, **more))
    data = dataset.PixelData
    findings = clean_pixels(dataset, PixelFacts.of(dataset))
    assert dataset.PixelData == data
    assert (findings.frames_changed, findings.passes, findings.encoding) == (0, 1, "unchanged")
    assert findings.gate == ("fast" if more else "full")


def test_text_in_one_frame_is_blanked_in_all_of_a_film_and_in_one_of_a_volume() -> None:
    frames = np.stack([(BODY * 200).astype(np.uint8)] * 4)
    frames[2][TEXT] = 255
    film = reread(image(frames, NumberOfFrames=4, SOPClassUID=ULTRASOUND_MULTIFRAME, Modality="US"))
    volume = reread(image(frames, NumberOfFrames=4, SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1", Modality="CT"))
    assert clean(film)[0].frames_changed == 4
    assert [bool(boxes) for boxes in clean(volume)[0].boxes] == [False, False, True, False]


def test_what_would_be_blanked_for_the_most_part_goes_to_review_with_a_picture() -> None:
    page = np.zeros(SHAPE, np.uint8)
    for row in range(4, 230, 17):
        page[ink(SHAPE, "HONG GILDONG 1955-1231 ID", row, 6)] = 255
    with pytest.raises(Quarantine) as caught:
        clean(reread(image(page)))
    assert caught.value.reason is Reason.TEXT_LEFT
    assert (caught.value.picture or b"").startswith(b"\x89PNG")
    assert "HONG" not in str(caught.value)


def test_pixels_that_cannot_be_read_are_never_called_clean() -> None:
    dataset = reread(image((BODY * 255).astype(np.uint8)), RLELossless)
    dataset.PixelData = dataset.PixelData[:60]
    with pytest.raises(Quarantine) as caught:
        clean_pixels(dataset, PixelFacts.of(dataset))
    assert caught.value.reason is Reason.PIXELS_NOT_EXAMINED
    assert "BurnedInAnnotation" not in dataset


def test_lossy_pixels_stay_marked_as_lossy(tmp_path: Path) -> None:
    dataset = by_gdcm(OBJECTS["8 bits"](), "JPEGBaselineProcess1", tmp_path)
    dataset.LossyImageCompression = "01"
    _, after = clean(dataset)
    assert after.LossyImageCompression == "01"


def test_the_same_image_gives_the_same_bytes() -> None:
    first, second = (clean(reread(OBJECTS["RGB"]()))[1] for _ in range(2))
    assert first.PixelData == second.PixelData


def test_an_object_without_pixels_has_none_to_clean() -> None:
    dataset = image((BODY * 255).astype(np.uint8))
    del dataset.PixelData
    assert clean_pixels(dataset, PixelFacts.of(dataset)).gate == "none"


def test_importing_deidentify_does_not_import_torch() -> None:
    code = "import sys, fedai_site.deidentify.pixels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["SC_rgb_rle.dcm", "SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_colour_bars_are_no_text(name: str) -> None:
    dataset = parse(Path(str(get_testdata_file(name))).read_bytes())
    data = dataset.PixelData
    assert clean_pixels(dataset, PixelFacts.of(dataset)).frames_changed == 0
    assert dataset.PixelData == data


def test_a_person_s_pixels_around_a_blanked_line_are_kept_through_all_rounds() -> None:
    noisy = np.random.default_rng(4).normal(90, 12, SHAPE)
    noisy[TEXT] = 250
    before = reread(image(np.clip(noisy, 0, 255).astype(np.uint8)))
    findings, after = clean(reread(image(np.clip(noisy, 0, 255).astype(np.uint8))))
    check(before, findings, after)
    assert findings.passes <= 3
    assert covered(findings.boxes[0], SHAPE).mean() < 0.25
