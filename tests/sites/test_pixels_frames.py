"""Frames out of a data set and back: only those that changed change, and only they are encoded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from burned_text import anatomy, by_gdcm, image, reread
from dicom_files import encode, parse
from fedai_site.decoding import Trial
from fedai_site.deidentify.pixels import frames
from fedai_site.quarantine import Quarantine, Reason
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import pack_bits
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

GREY = (anatomy(40, 60) * 255).astype(np.uint8)
DEEP = (anatomy(40, 60) * 4095).astype(np.uint16)
SIGNED = (anatomy(40, 60) * 3000 - 1000).astype(np.int16)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def all_frames(dataset: Dataset) -> list[NDArray[Any]]:
    layout = frames.layout(dataset)
    assert layout is not None
    return [stored.copy() for stored, _ in frames.read(dataset, layout)]


def change_last(dataset: Dataset) -> tuple[list[NDArray[Any]], str]:
    """What the frames should be after the last one was changed, and how it was written."""
    layout = frames.layout(dataset)
    assert layout is not None
    wanted = all_frames(dataset)
    wanted[-1][3:17, 4:20] = wanted[-1][0, 0]
    return wanted, frames.write(dataset, layout, {len(wanted) - 1: wanted[-1]})


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("pixels", [GREY, DEEP, SIGNED, COLOUR], ids=["8", "16", "signed", "colour"])
def test_a_native_frame_is_changed_in_place(pixels: NDArray[Any], syntax: Any) -> None:
    dataset = reread(image(np.stack([pixels, pixels[::-1]]), NumberOfFrames=2))
    if syntax == ExplicitVRBigEndian:
        order = pixels.dtype.newbyteorder(">")
        dataset.PixelData = np.stack([pixels, pixels[::-1]]).astype(order).tobytes()
    dataset = parse(encode(dataset, syntax))
    before = all_frames(dataset)
    wanted, how = change_last(dataset)
    after = all_frames(parse(encode(dataset, syntax)))
    assert how == "in place"
    assert not np.array_equal(before[1], after[1])
    assert all(np.array_equal(one, other) for one, other in zip(after, wanted, strict=True))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("pixels", [GREY, DEEP, SIGNED, COLOUR], ids=["8", "16", "signed", "colour"])
def test_only_the_changed_frame_is_encoded_again(pixels: NDArray[Any], syntax: Any) -> None:
    dataset = reread(image(np.stack([pixels, pixels[::-1], pixels]), NumberOfFrames=3), syntax)
    streams = list(generate_frames(dataset.PixelData, number_of_frames=3))
    wanted, how = change_last(dataset)
    written = parse(encode(dataset, syntax))
    kept = list(generate_frames(written.PixelData, number_of_frames=3))
    assert how == "re-encoded"
    assert [stream.rstrip(b"\0") for stream in kept[:2]] == [stream.rstrip(b"\0") for stream in streams[:2]]
    assert all(np.array_equal(one, other) for one, other in zip(all_frames(written), wanted, strict=True))


@pytest.mark.parametrize("kind", ["JPEGBaselineProcess1", "JPEGLosslessProcess14_1", "JPEGLSLossless"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_what_has_no_lossless_encoder_here_becomes_native(
    pixels: NDArray[Any], kind: str, tmp_path: Path
) -> None:
    dataset = by_gdcm(image(pixels), kind, tmp_path)
    wanted, how = change_last(dataset)
    written = parse(encode(dataset, dataset.file_meta.TransferSyntaxUID))
    assert how == "native"
    assert written.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert all(np.array_equal(one, other) for one, other in zip(all_frames(written), wanted, strict=True))


def test_planes_stay_planes() -> None:
    dataset = reread(image(COLOUR, PlanarConfiguration=1))
    wanted, _ = change_last(dataset)
    stored = np.frombuffer(dataset.PixelData, np.uint8).reshape(3, *GREY.shape)
    assert np.array_equal(np.moveaxis(stored, 0, -1), wanted[0])


def test_subsampled_colour_is_packed_as_it_was() -> None:
    packed = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
    dataset = image(COLOUR, PhotometricInterpretation="YBR_FULL_422")
    dataset.PixelData = packed.tobytes()
    dataset = parse(encode(dataset))
    layout = frames.layout(dataset)
    assert layout is not None
    (stored,) = all_frames(dataset)
    frames.write(dataset, layout, {0: stored})
    assert dataset.PixelData == packed.tobytes()


def test_single_bits_are_packed_as_they_were() -> None:
    bits = np.random.default_rng(1).integers(0, 2, (3, 7, 9), np.uint8)
    dataset = image(bits, NumberOfFrames=3, BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset.PixelData = pack_bits(bits.reshape(-1))
    dataset = parse(encode(dataset))
    wanted, _ = change_last_bits(dataset, bits)
    assert np.array_equal(np.stack(all_frames(parse(encode(dataset)))), wanted)


def change_last_bits(dataset: Dataset, bits: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], str]:
    layout = frames.layout(dataset)
    assert layout is not None
    wanted = bits.copy()
    wanted[-1, 2:5, 1:8] = 1
    return wanted, frames.write(dataset, layout, {2: wanted[-1]})


def test_a_video_is_not_looked_at() -> None:
    dataset = image(GREY)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.103"
    with pytest.raises(Quarantine) as caught:
        frames.layout(dataset)
    assert caught.value.reason is Reason.VIDEO


@pytest.mark.parametrize("damage", ["short", "garbage", "frames"])
def test_what_cannot_be_decoded_goes_to_quarantine(damage: str) -> None:
    dataset = reread(image(GREY), RLELossless if damage == "garbage" else ExplicitVRLittleEndian)
    if damage == "short":
        dataset.PixelData = dataset.PixelData[:100]
    elif damage == "garbage":
        dataset.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00abcd"
    else:
        dataset.NumberOfFrames = 5
    with pytest.raises(Quarantine) as caught:
        all_frames(dataset)
    assert caught.value.reason is Reason.PIXELS_NOT_EXAMINED


def test_an_element_that_is_no_picture_holds_no_pixels() -> None:
    dataset = image(GREY)
    del dataset.Rows, dataset.Columns
    dataset.PixelData = b"\0\0"
    assert frames.layout(dataset) is None
    dataset.PixelData = b"KIM^"
    with pytest.raises(Quarantine) as caught:
        frames.layout(dataset)
    assert caught.value.reason is Reason.PIXELS_NOT_EXAMINED


def test_jpeg_of_twelve_bits_is_read_though_it_is_no_picture_for_training() -> None:
    data = Path(str(get_testdata_file("JPGExtended.dcm"))).read_bytes()
    trial = Trial()
    assert trial.decodes(data, stored=True)
    assert not trial.decodes(data)
    assert not trial.decodes(data[:4000], stored=True)
    trial.close()
    (stored,) = all_frames(parse(data))
    assert stored.shape == (1024, 256)
    assert 255 < stored.max() < 4096
