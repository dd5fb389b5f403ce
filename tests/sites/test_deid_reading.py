from __future__ import annotations

import resource
import struct
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest
from dicom_files import SECRET, encode, radiograph
from fedai_site.deidentify import Deidentifier, parse, write
from fedai_site.quarantine import Quarantine
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG4HP41,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

FILE = encode(radiograph())


def reason(data: bytes) -> str:
    with pytest.raises(Quarantine) as caught:
        write(Deidentifier(SECRET).clean(parse(data)))
    return str(caught.value.reason)


def clean(data: bytes) -> Dataset:
    return parse(write(Deidentifier(SECRET).clean(parse(data))))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("without", [132, "meta"])
def test_old_files_without_preamble_are_read(syntax: str, without: int | str) -> None:
    data = encode(radiograph(), syntax)
    end = 144 + int.from_bytes(data[140:144], "little")
    cut = data[132 if without == 132 else end :]
    assert clean(cut).pixel_array.shape == (16, 12)


@pytest.mark.parametrize("trailer", [b"Hong^Gildong", b"Zebulon " * 100, b"\0" * 9, b"\xff" * 50, b"Z", FILE])
def test_bytes_behind_the_data_set_are_dropped(trailer: bytes) -> None:
    out = write(Deidentifier(SECRET).clean(parse(FILE + trailer)))
    assert out == write(Deidentifier(SECRET).clean(parse(FILE)))


def test_an_attribute_behind_the_pixels_can_not_take_the_place_of_one_before_them() -> None:
    element = struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 8) + b"OTHER-ID"
    assert clean(FILE + element).PatientID == clean(FILE).PatientID


def test_bytes_behind_an_object_without_pixels_are_dropped_and_a_cut_one_is_refused() -> None:
    plan = encode(radiograph(PixelData=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.5"))
    assert clean(plan + b"Hong^Gildong" * 3).SOPClassUID == "1.2.840.10008.5.1.4.1.1.481.5"
    assert reason(plan[:-1]) == "TRUNCATED"


@pytest.mark.parametrize("data", [b"", b"DICM", bytes(200), b"%PDF-1.7" + bytes(500), b"\x08\0"])
def test_what_is_not_dicom_is_called_so(data: bytes) -> None:
    assert reason(data) == "NOT_DICOM"


def test_a_length_beyond_the_file_costs_neither_time_nor_memory() -> None:
    at = FILE.index(b"\xe0\x7f\x10\0OW")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, perf_counter()
    for length in (0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF):
        assert reason(FILE[: at + 8] + struct.pack("<I", length) + FILE[at + 12 :]) in (
            "TRUNCATED",
            "UNREADABLE",
        )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert perf_counter() - start < 60


def test_documents_and_video_are_quarantined() -> None:
    document = radiograph(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", PixelData=None)
    document.EncapsulatedDocument = b"%PDF Zebulon\0"
    assert reason(encode(document)) == "ENCAPSULATED_DOCUMENT"
    video = radiograph(PixelData=encapsulate([b"\0\0\1\xb3"]))
    video["PixelData"].VR, video["PixelData"].is_undefined_length = "OB", True
    assert reason(encode(video, MPEG4HP41)) == "VIDEO"


def overlaid(syntax: str) -> Dataset:
    """A word drawn in the four unused bits of each pixel, and a second one in an overlay of its own."""
    image = radiograph()
    pixels = bytearray(image.PixelData)
    order = slice(1, None, 2)
    pixels[order] = bytes(value | 0xF0 for value in pixels[order])
    image.PixelData = bytes(pixels)
    if syntax == ExplicitVRBigEndian:
        swapped = bytearray(pixels)
        swapped[::2], swapped[1::2] = pixels[1::2], pixels[::2]
        image.PixelData = bytes(swapped)
    image.add_new(0x60000010, "US", 16)
    image.add_new(0x60000011, "US", 12)
    image.add_new(0x60000100, "US", 16)
    image.add_new(0x60000102, "US", 12)
    image.add_new(0x60020102, "US", 0)
    image.add_new(0x60023000, "OW", b"Zebulon\0")
    return image


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_overlays_in_unused_bits_are_set_to_zero_and_the_picture_stays(syntax: str) -> None:
    kept = clean(encode(overlaid(syntax), syntax))
    assert (kept.pixel_array == radiograph().pixel_array).all()
    assert not [element for element in kept if element.tag.group >> 8 == 0x60]


def test_an_overlay_that_can_not_be_cut_out_is_quarantined() -> None:
    image = overlaid(ExplicitVRLittleEndian)
    image[0x60000102].value = 11  # within the picture's own bits
    assert reason(encode(image)) == "OVERLAY_IN_PIXELS"
    image = overlaid(ExplicitVRLittleEndian)
    image.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    assert reason(encode(image, JPEGBaseline8Bit)) == "OVERLAY_IN_PIXELS"


def test_bytes_behind_the_last_frame_are_cut_off_and_padding_of_zeros_is_not() -> None:
    pixels = radiograph().PixelData
    assert clean(encode(radiograph(PixelData=pixels + b"Hong^Gildong"))).PixelData == pixels
    assert clean(encode(radiograph(PixelData=pixels + bytes(12)))).PixelData == pixels + bytes(12)


def test_numbers_that_the_picture_hangs_on_are_never_replaced() -> None:
    assert reason(encode(radiograph(patient="7654321", RescaleSlope="7654321"))) == "SUSPICIOUS_CONTENT"


def directories() -> Iterator[Path]:
    folder = Path(str(get_testdata_file("DICOMDIR"))).parent
    yield from (
        folder / name for name in ("DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-reordered")
    )


@pytest.mark.parametrize("path", directories(), ids=lambda path: path.name)
def test_the_records_of_a_media_directory_are_cleaned_and_still_lead_to_each_other(path: Path) -> None:
    before = parse(path.read_bytes())
    names = {str(record.PatientName) for record in before.DirectoryRecordSequence if "PatientName" in record}
    out = write(Deidentifier(SECRET).clean(before))
    after = parse(out)
    assert not [name for name in names if name.encode() in out]
    assert b"77654033" not in out
    assert chain(after) == chain(before)


def chain(directory: Dataset) -> list[tuple[str, int, int]]:
    """For each record its kind, and which record follows it and which is below it, by number."""
    records = directory.DirectoryRecordSequence
    number = {record.seq_item_tell: at for at, record in enumerate(records, start=1)}
    return [
        (
            record.DirectoryRecordType,
            number.get(record.OffsetOfTheNextDirectoryRecord, 0),
            number.get(record.OffsetOfReferencedLowerLevelDirectoryEntity, 0),
        )
        for record in records
    ]


def test_an_icon_a_signature_and_a_curve_are_gone() -> None:
    image = radiograph()
    icon = Dataset()
    icon.Rows = icon.Columns = 2
    icon.add_new(0x7FE00010, "OW", b"Zebu")
    image.IconImageSequence = Sequence([icon])
    image.add_new(0xFFFAFFFA, "SQ", Sequence([Dataset()]))
    image.add_new(0x50003000, "OW", b"Zebulon\0")
    image.add_new(0x04000500, "SQ", Sequence([Dataset()]))
    kept = clean(encode(image))
    assert not [tag for tag in (0x00880200, 0xFFFAFFFA, 0x50003000) if tag in kept]
