from __future__ import annotations

import resource
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import encode, parse, radiograph
from fedai_site import intake
from fedai_site.decoding import Trial
from fedai_site.quarantine import WORDS, Quarantine, Reason
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

FILE = encode(radiograph())


def reason(path: Path) -> str:
    with pytest.raises(Quarantine) as caught:
        intake.read(path)
    assert str(path) not in str(caught.value)
    return str(caught.value.reason)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "Hong^Gildong.dcm"


def test_a_folder_is_searched_to_its_end_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("z", "a/y", "a/b/x"):
        (tmp_path / name).touch()
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "a/link").symlink_to(tmp_path / "z")
    assert [path.name for path in intake.find(tmp_path)] == ["x", "y", "z"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\0", bytes(5000), b"\x89PNG\r\n" + bytes(200)])
def test_what_is_not_dicom_is_called_so(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert reason(file) == "NOT_DICOM"


@pytest.mark.parametrize("missing", [1, 2, 100, 383])
def test_a_file_cut_inside_its_pixels_is_truncated(file: Path, missing: int) -> None:
    file.write_bytes(FILE[:-missing])
    assert reason(file) == "TRUNCATED"


def test_a_file_cut_anywhere_is_quarantined(file: Path) -> None:
    for length in range(0, len(FILE), 7):
        file.write_bytes(FILE[:length])
        assert reason(file) in {"NOT_DICOM", "TRUNCATED", "NO_PIXELS", "UNREADABLE", "NO_IDENTITY"}


def test_an_object_without_pixels_is_quarantined(file: Path) -> None:
    file.write_bytes(encode(radiograph(PixelData=None)))
    assert reason(file) == "NO_PIXELS"


@pytest.mark.parametrize("size", [0, 2, 382, 386, 768])
def test_pixels_of_a_wrong_size_are_quarantined(file: Path, size: int) -> None:
    file.write_bytes(encode(radiograph(PixelData=b"\1" * size)))
    assert reason(file) == "PIXEL_SIZE"


@pytest.mark.parametrize("change", [{"Rows": 0}, {"Rows": None}, {"Columns": None}, {"BitsAllocated": 0}])
def test_pixels_whose_shape_is_not_known_are_quarantined(file: Path, change: dict[str, Any]) -> None:
    file.write_bytes(encode(radiograph(**change)))
    assert reason(file) in {"PIXEL_SIZE", "UNREADABLE"}


def test_zeros_after_the_pixels_are_cut_off(file: Path) -> None:
    file.write_bytes(encode(radiograph(PixelData=b"\1" * 384 + bytes(100))))
    assert intake.read(file).PixelData == b"\1" * 384


def test_a_gigantic_claimed_length_costs_no_memory(file: Path) -> None:
    at = FILE.index(b"\xe0\x7f\x10\0OW")
    file.write_bytes(FILE[: at + 8] + struct.pack("<I", 0xFFFFFFF0) + FILE[at + 12 :])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(file) == "TRUNCATED"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_gigantic_image_is_refused_before_it_is_decoded(file: Path) -> None:
    file.write_bytes(encode(radiograph(Rows=65535, Columns=65535)))
    assert reason(file) == "TOO_LARGE"


def test_a_deflated_file_that_unfolds_a_thousandfold_is_refused(file: Path) -> None:
    deflated = encode(radiograph(), DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(deflated[140:144], "little")
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    file.write_bytes(deflated[:start] + bomb)
    assert reason(file) in {"TOO_LARGE", "UNREADABLE", "NO_PIXELS"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"SOPClassUID": "1.2.840.113619.4.26"}, "UNKNOWN_SOP_CLASS"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1", "PixelData": None}, "ENCAPSULATED_DOCUMENT"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "PixelData": None}, "STRUCTURED_REPORT"),
        ({"PhotometricInterpretation": "ZEBRA"}, "UNDECODABLE"),
    ],
)
def test_uncertain_objects_are_quarantined(file: Path, change: dict[str, Any], expected: str) -> None:
    file.write_bytes(encode(radiograph(**change)))
    assert reason(file) == expected


def test_an_overlay_in_the_unused_bits_of_the_pixels_is_quarantined(file: Path) -> None:
    image = radiograph()
    image.add_new(0x60000100, "US", 16)
    image.add_new(0x60000102, "US", 12)
    file.write_bytes(encode(image))
    assert reason(file) == "OVERLAY_IN_PIXELS"


def test_a_private_transfer_syntax_is_not_guessed(file: Path) -> None:
    file.write_bytes(FILE.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0"))
    assert reason(file) == "UNSUPPORTED_SYNTAX"


def test_a_file_without_permission_is_quarantined(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(FILE)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert reason(file) == "UNREADABLE"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(128, len(FILE) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_flipped_bytes_end_in_an_image_or_in_quarantine(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    data = bytearray(FILE)
    for at, value in flips:
        data[at] = value
    path = tmp_path / "f"
    path.write_bytes(data)
    with suppress(Quarantine):
        assert intake.read(path).SOPInstanceUID


def test_every_reason_has_words_and_a_way_out() -> None:
    assert set(WORDS) == set(Reason)


def test_rescale_is_applied_and_monochrome_1_is_inverted(file: Path) -> None:
    values = np.arange(192, dtype=np.uint16).reshape(16, 12)
    file.write_bytes(encode(radiograph(PixelData=values.tobytes(), RescaleSlope="2", RescaleIntercept="-10")))
    plain = intake.pixels(file)
    np.testing.assert_array_equal(plain, values * 2.0 - 10)
    assert plain.dtype == np.float32
    file.write_bytes(encode(radiograph(PixelData=values.tobytes(), PhotometricInterpretation="MONOCHROME1")))
    np.testing.assert_array_equal(intake.pixels(file), 191.0 - values)


def test_a_window_is_applied_to_radiographs_unless_it_shows_nothing(file: Path) -> None:
    values = np.arange(192, dtype=np.uint16).reshape(16, 12).tobytes()
    file.write_bytes(encode(radiograph(PixelData=values, WindowCenter="96", WindowWidth="50")))
    assert len(np.unique(intake.pixels(file))) < 60
    file.write_bytes(encode(radiograph(PixelData=values, WindowCenter="5000", WindowWidth="1")))
    assert len(np.unique(intake.pixels(file))) == 192


def test_padding_takes_the_lowest_value_of_the_rest(file: Path) -> None:
    values = np.full((16, 12), 500, np.uint16)
    values[0], values[1] = 0, 300
    file.write_bytes(encode(radiograph(PixelData=values.tobytes(), PixelPaddingValue=0)))
    assert intake.pixels(file).min() == 300


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_the_same_pixels_come_out_of_every_syntax(file: Path, syntax: str) -> None:
    file.write_bytes(FILE)
    expected = intake.pixels(file)
    image = radiograph()
    if syntax == ExplicitVRBigEndian:
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    file.write_bytes(encode(image, syntax))
    np.testing.assert_array_equal(intake.pixels(file), expected)


def test_colour_becomes_luminance_and_of_several_frames_the_middle_one_is_taken() -> None:
    colour = Path(str(get_testdata_file("examples_rgb_color.dcm")))
    assert intake.pixels(colour).shape == (240, 320)
    frames = Path(str(get_testdata_file("rtdose.dcm")))
    dose = parse(frames.read_bytes())
    expected = dose.pixel_array[7] * float(dose.get("RescaleSlope", 1))
    np.testing.assert_array_equal(intake.pixels(frames), expected.astype(np.float32))


def test_a_stream_that_ends_its_decoder_s_process_is_quarantined_and_the_next_one_is_read(file: Path) -> None:
    jpeg = Path(str(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))).read_bytes()
    broken = bytearray(jpeg)
    broken[jpeg.index(b"\xff\xd8") + 2] ^= 0x55
    for content, is_good in ((jpeg, True), (bytes(broken), False), (jpeg, True)):
        file.write_bytes(content)
        if is_good:
            assert intake.read(file).Rows == 100
        else:
            assert reason(file) == "UNDECODABLE"


def test_a_decoder_that_does_not_come_back_is_given_up() -> None:
    trial = Trial(time_limit_s=0.001)
    jpeg = Path(str(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))).read_bytes()
    assert not trial.decodes(jpeg)


def test_jpeg_2000_is_read() -> None:
    path = Path(str(get_testdata_file("MR_small_jp2klossless.dcm")))
    plain = Path(str(get_testdata_file("MR_small.dcm")))
    assert parse(path.read_bytes()).file_meta.TransferSyntaxUID == JPEG2000Lossless
    np.testing.assert_array_equal(intake.pixels(path), intake.pixels(plain))
