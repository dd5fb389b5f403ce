"""Bytes of coded pixels that no decoder reads or shows, and words that hold more than their stored bits."""

from __future__ import annotations

import os
import signal
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from fedai_site import decoding
from fedai_site.deidentify.pixels import frames, surplus
from fedai_site.quarantine import Quarantine
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import convert_color_space, get_encoder
from pydicom.uid import JPEG2000Lossless, RLELossless

NAME = b"Zebulon Q. Hong, born 31 Dec 1955"
FILES = {
    "JPEG": "SC_rgb_jpeg_dcmtk.dcm",
    "JPEG lossless": "SC_rgb_jpeg_gdcm.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG 2000": "MR_small_jp2klossless.dcm",
}


def sample(kind: str) -> Dataset:
    return dcmread(str(get_testdata_file(FILES[kind])))


def with_stream(dataset: Dataset, stream: bytes) -> Dataset:
    dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    return dataset


def stream_of(dataset: Dataset) -> bytes:
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def hiding(kind: str) -> Dataset:
    """A picture with a name behind its coded data, where every decoder stops reading before."""
    dataset = sample(kind)
    stream = stream_of(dataset).rstrip(b"\0")
    end = stream.rindex(b"\xff\xd9")
    hidden = stream[:end] + NAME + stream[end:]
    if kind == "JPEG 2000":
        at = hidden.index(b"\xff\x90")
        length = int.from_bytes(hidden[at + 6 : at + 10], "big") + len(NAME)
        hidden = hidden[: at + 6] + length.to_bytes(4, "big") + hidden[at + 10 :]
    return with_stream(dataset, hidden)


def layout(dataset: Dataset) -> frames.Layout:
    found = frames.layout(dataset)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", FILES)
def test_a_stream_that_ends_where_its_picture_does_stays_as_it_is(kind: str) -> None:
    dataset = sample(kind)
    assert surplus.uncertain(dataset, layout(dataset)) == frozenset()


LOOSE = [kind for kind in FILES if kind != "JPEG-LS"]
"""Those whose decoders don't mind surplus bytes."""


@pytest.mark.parametrize("kind", LOOSE)
def test_bytes_behind_the_coded_data_that_no_decoder_reads_are_noticed(kind: str) -> None:
    dataset = hiding(kind)
    before = bytes(dataset.PixelData)
    assert surplus.uncertain(dataset, layout(dataset)) == {0}
    assert dataset.PixelData == before


def test_what_its_decoder_refuses_is_quarantined() -> None:
    dataset = hiding("JPEG-LS")
    with pytest.raises(Quarantine, match="PIXELS_NOT_EXAMINED"):
        surplus.uncertain(dataset, layout(dataset))


def bytes_of(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file)
    return file.getvalue()


@pytest.mark.parametrize("kind", FILES)
def test_streams_that_were_damaged_harm_no_decoding_after_them(kind: str) -> None:
    whole = sample(kind)
    expected = [decoding.digest(frames.decoded(whole, layout(whole), 0)[0])]
    rng, stream = np.random.default_rng(3), stream_of(whole)
    for _ in range(4):
        damaged = bytearray(stream)
        for at in rng.integers(len(stream) // 2, len(stream), 4):
            damaged[at] ^= 0x5A
        found = decoding.damaged_frames(bytes_of(with_stream(sample(kind), bytes(damaged))))
        assert len(found) <= 1
    assert decoding.damaged_frames(bytes_of(sample(kind))) == expected
    assert decoding.decodes(bytes_of(sample(kind)))


def test_a_decoder_that_ends_its_process_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_digests", lambda data: os.kill(os.getpid(), signal.SIGKILL))
    assert decoding._apart(b"") == b""


def test_a_colour_segment_that_is_too_short_is_emptied_and_nothing_behind_it_touched() -> None:
    from fedai_site.deidentify.codestream import without_comments

    dataset = dcmread(str(get_testdata_file("SC_rgb_jpeg.dcm")))
    before, shown = stream_of(dataset), frames.decoded(dataset, layout(dataset), 0)[0]
    assert before[2:11] == b"\xff\xee\x00\x0cAdobe"  # ten bytes, where twelve belong
    dataset.PixelData, _ = without_comments(dataset.PixelData, dataset.file_meta.TransferSyntaxUID)
    assert stream_of(dataset)[16:] == before[16:]
    assert np.array_equal(frames.decoded(dataset, layout(dataset), 0)[0], shown)


@pytest.mark.parametrize("kind", LOOSE)
def test_such_a_picture_is_encoded_anew_without_them(kind: str) -> None:
    from fedai_site.deidentify.pixels import PixelFacts, clean_pixels

    dataset = hiding(kind)
    shown = [stored for stored, _ in frames.read(dataset, layout(dataset))]
    findings = clean_pixels(dataset, PixelFacts.of(dataset))
    assert NAME not in dataset.PixelData
    assert findings.encoding in ("re-encoded", "native")
    if dataset.get("SamplesPerPixel") == 3:
        assert dataset.PhotometricInterpretation == "RGB"
        rgb = convert_color_space(shown[0], "YBR_FULL", "RGB") if kind == "JPEG" else shown[0]
        assert np.array_equal(rgb, next(frames.read(dataset, layout(dataset)))[0])
    else:
        after = [stored for stored, _ in frames.read(dataset, layout(dataset))]
        assert np.array_equal(shown, after)


def coded(words: Any, syntax: Any) -> Dataset:
    """Words of 16 bits, of which twelve are said to be stored, in an encoding that keeps all sixteen."""
    dataset = sample("JPEG 2000")
    dataset.Rows, dataset.Columns = words.shape
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    dataset.file_meta.TransferSyntaxUID = syntax
    frame = get_encoder(syntax).encode(
        words, rows=words.shape[0], columns=words.shape[1], samples_per_pixel=1, bits_allocated=16,
        bits_stored=16, pixel_representation=0, photometric_interpretation="MONOCHROME2", number_of_frames=1,
    )  # fmt: skip
    return with_stream(dataset, frame)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_coded_words_with_more_than_their_stored_bits_are_quarantined(syntax: Any) -> None:
    words = np.arange(64 * 64, dtype="<u2").reshape(64, 64)
    plain = coded(words, syntax)
    assert np.array_equal(next(frames.read(plain, layout(plain)))[0], words)
    words[3, 4] |= 0x5000
    hidden = coded(words, syntax)
    with pytest.raises(Quarantine, match="OVERLAY_IN_PIXELS"):
        list(frames.read(hidden, layout(hidden)))
