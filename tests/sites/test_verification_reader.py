from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dicom_files import SECRET, encode, radiograph
from fedai_site.deidentify import Deidentifier, create_secret, write
from fedai_site.deidentify.objects import Settings
from fedai_site.deidentify.output import Job
from fedai_site.deidentify.profile import BASIC
from fedai_site.deidentify.run import run
from fedai_site.deidentify.table import load_table
from fedai_site.verification import Severity, verify
from fedai_site.verification.part10 import take_apart
from fedai_site.verification.second_table import load_second_table
from fedai_site.verification.technical import TECHNICAL, is_snomed
from pydicom.data import get_testdata_file
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from verification_files import (
    change,
    element,
    evidence_of,
    folder_of,
    one_object,
    put,
    put_bytes,
    read,
    sequence,
    told,
    with_evidence,
)

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


@pytest.mark.parametrize("tag", [0x7FE00001, 0x7FE00002])
def test_text_in_the_place_of_an_offset_table_is_found_and_a_table_is_none(tag: int, tmp_path: Path) -> None:
    path, place = one_object(tmp_path / "out"), f"(7FE0,{tag & 0xFFFF:04X})"
    put(path, tag, "OV", (0).to_bytes(8, "little") + (4096).to_bytes(8, "little"))
    assert place not in {one.place for one in read(path).findings}
    put(path, tag, "OV", b"HONG GILDONG 010-1234-56")
    assert ("violation", "unlisted", place) in told(read(path))


def test_pixels_whose_stream_has_another_sign_than_the_header_are_read_all_the_same(tmp_path: Path) -> None:
    key = tmp_path / "pseudonym.key"
    create_secret(key)
    source = Path(str(get_testdata_file("J2K_pixelrep_mismatch.dcm")))
    settings = Settings(BASIC, key, pixels=False, faces=False)
    run(Job(source, tmp_path / "out", tmp_path / "private", settings))
    found = verify(tmp_path / "out").findings
    assert not [one for one in found if one.check == "pixels" and one.severity is Severity.VIOLATION]


def test_the_directory_of_a_medium_needs_no_claims_but_its_records_are_looked_at(tmp_path: Path) -> None:
    source, out = Path(str(get_testdata_file("DICOMDIR"))), tmp_path / "out"
    key = tmp_path / "pseudonym.key"
    create_secret(key)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "DICOMDIR").write_bytes(source.read_bytes())
    run(Job(tmp_path / "in", out, tmp_path / "private", Settings(BASIC, key, pixels=False, faces=False)))
    (path,) = out.rglob("*.dcm")
    assert not [one for one in verify(out).findings if one.severity is Severity.VIOLATION]
    data = path.read_bytes()
    at = data.index(b"\x10\x00\x20\x00LO") + 8
    size = data[at - 2]
    path.write_bytes(data[:at] + b"HONG GILDONG"[:size].ljust(size) + data[at + size :])
    assert [one for one in verify(out).findings if one.severity is Severity.VIOLATION]


def nested(number: int = 0) -> Dataset:
    """A radiograph with references two sequences deep, and identifiers in them."""
    image = radiograph(number, patient=f"MRN-{number % 2}", PatientSex="M", AccessionNumber="A1")
    inner = Dataset()
    inner.ReferencedSOPClassUID, inner.ReferencedSOPInstanceUID = image.SOPClassUID, "1.2.3.1"
    item = Dataset()
    item.StudyInstanceUID, item.PatientName = "1.2.4.99", "Hong^Gildong"
    item.ReferencedImageSequence = Sequence([inner])
    image.RelatedSeriesSequence = Sequence([item])
    return image


def unlisted(vr: str) -> int:
    """An attribute of the Standard that Table E.1-1 doesn't list, of a representation."""
    rows = load_second_table().rows
    return next(
        tag for tag, entry in sorted(DicomDictionary.items())
        if entry[0] == vr and tag not in rows and tag not in TECHNICAL and 0x00080000 < tag < 0x50000000
        and tag not in (0x00080005, 0x00120063) and not entry[3]
    )  # fmt: skip


def test_what_the_engine_writes_is_clean(tmp_path: Path) -> None:
    found = read(folder_of(tmp_path, [nested(number) for number in range(4)]))
    assert found.ok, found.findings
    assert not found.findings
    assert found.counts["objects"] == 4
    assert found.counts["patients"] == 2
    assert found.counts["references resolved in the folder"] == 4


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_every_syntax_is_read_by_the_parser_of_its_own(tmp_path: Path, syntax: Any) -> None:
    raw = encode(nested(), syntax)
    parts = take_apart(memoryview(raw))
    assert not parts.broken
    assert parts.text(0x00100010) == "Hong^Gildong"
    assert sum(e.tag == 0x00100010 for e in parts.elements) == 2
    assert any(e.place == "(0008,1250)[0](0008,1140)[0](0008,1155)" for e in parts.elements)
    (tmp_path / "a.dcm").write_bytes(raw)
    assert {
        ("violation", "table", "(0008,1250)[0](0010,0010)"),
        ("violation", "table", "(0008,0018)"),
    } <= told(verify(tmp_path))


def test_both_copies_of_the_table_say_the_same() -> None:
    first, second = load_table().actions, load_second_table().rows
    assert {tag: row.code for tag, row in second.items() if first.get(tag) != row.code} == {}
    assert len(set(first) - set(second)) <= 2  # the newer edition's additions


@pytest.mark.parametrize(
    ("tag", "vr", "value", "check"),
    [
        (0x00080080, "LO", b"Seoul Hospital", "table"),  # X
        (0x00080081, "ST", b"", "table"),  # X, though empty
        (0x00100010, "PN", b"Kim^Yuna", "table"),  # Z
        (0x00080020, "DA", b"20240131", "table"),  # Z
        (0x00080050, "SH", b"A2024-1", "table"),  # Z
        (0x00181000, "LO", b"SN 1234", "table"),  # X/Z/D
        (0x00080018, "UI", b"1.2.840.113619.2.55", "table"),  # U
        (0x00200052, "UI", b"2.25.0123", "table"),  # a leading zero is no UID of ours
        (0x00101010, "AS", b"067Y", "table"),  # X
        (0x00090010, "LO", b"ACME 1.1", "private"),
        (0x00091001, "UN", b"Hong", "private"),
        (0x50003000, "OW", bytes(8), "graphics"),
        (0x60003000, "OW", bytes(8), "graphics"),
        (0x60000022, "LO", b"note", "graphics"),
        (0x00100002, "LO", b"never heard of", "unlisted"),
        (0xFFFCFFFC, "OB", b"Hong", "table"),
        (0x00040010, "CS", b"HONG", "file structure"),
        (0x00180015, "CS", b"hong gildong, chest", "unlisted"),
        (0x00180050, "DS", b"Hong", "unlisted"),
    ],
)
def test_what_should_not_be_there_is_a_violation(
    tmp_path: Path, tag: int, vr: str, value: bytes, check: str
) -> None:
    path = one_object(tmp_path)
    put(path, tag, vr, value)
    found = read(path)
    assert not found.ok
    place = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    assert ("violation", check, place) in told(found)


@pytest.mark.parametrize(
    ("vr", "value", "severity"),
    [
        ("PN", b"Kim^Yuna", "violation"),
        ("DA", b"20240131", "violation"),
        ("TM", b"101500", "violation"),
        ("DT", b"20240131101500", "violation"),
        ("UI", b"1.2.3.4", "violation"),
        ("LO", b"free text", "look"),
        ("ST", b"free text", "look"),
        ("OB", b"who knows", "look"),
        ("PN", b"ANONYMIZED", ""),
        ("DA", b"19000101", ""),
        ("UI", b"1.2.840.10008.1.1", ""),
    ],
)
def test_what_the_table_does_not_list_is_judged_by_its_representation(
    tmp_path: Path, vr: str, value: bytes, severity: str
) -> None:
    path = one_object(tmp_path)
    put(path, unlisted(vr), vr, value)
    assert {f.severity for f in read(path).findings if f.check in ("unlisted", "dates")} == (
        {severity} if severity else set()
    )


def test_a_sequence_that_has_to_be_a_dummy_may_hold_nothing_else(tmp_path: Path) -> None:
    path = one_object(tmp_path)
    put_bytes(path, 0x0040A730, sequence(0x0040A730, element(0x0040A160, "UT", b"The text")))
    assert ("violation", "table", "(0040,A730)[0](0040,A160)") in told(read(path))


def test_a_code_string_that_is_not_quite_one_is_for_a_person_to_look_at(tmp_path: Path) -> None:
    path = one_object(tmp_path)
    put(path, 0x00180015, "CS", b"ABDOM/RAD")
    found = read(path)
    assert found.ok
    assert told(found) == {("look", "unlisted", "(0018,0015)")}


def test_shifted_dates_and_tables_of_values_may_stay_in_a_sequence_that_has_to_be_a_dummy(
    tmp_path: Path,
) -> None:
    path = one_object(tmp_path)
    shifted(path)
    kept = element(0x00080020, "DA", b"20190131") + element(0x00281222, "OW", bytes([1, 2]))
    put_bytes(path, 0x00401101, sequence(0x00401101, kept + element(0x0040A040, "CS", b"TEXT")))
    found = read(path)
    assert found.ok
    assert {place for severity, _, place in told(found) if severity == "look"} == {
        "(0040,1101)[0](0008,0020)", "(0040,1101)[0](0028,1222)",
    }  # fmt: skip
    put_bytes(path, 0x00401101, sequence(0x00401101, kept + element(0x0040A30A, "DS", b"12.5")))
    assert read(path).ok
    put_bytes(path, 0x00401101, sequence(0x00401101, kept + element(0x00080081, "ST", b"Ward twelve")))
    assert not read(path).ok


def test_a_claimed_option_allows_what_it_is_for_and_nothing_else(tmp_path: Path) -> None:
    path = one_object(tmp_path)
    codes = [
        element(0x00080100, "SH", code) + element(0x00080102, "SH", b"DCM") for code in (b"113100", b"113109")
    ]
    put_bytes(path, 0x00120064, sequence(0x00120064, *codes))
    put(path, 0x00181000, "LO", b"SN 1234")
    assert read(path).ok
    put(path, 0x00080080, "LO", b"Seoul Hospital")
    assert told(read(path)) == {("violation", "table", "(0008,0080)")}


@pytest.mark.parametrize(
    ("tag", "vr", "value", "place"),
    [
        (0x00120062, "CS", b"NO", "(0012,0062)"),
        (0x00280301, "CS", b"YES", "(0028,0301)"),
        (0x00280303, "CS", b"MODIFIED", "(0028,0303)"),
        (0x00120064, "SQ", b"", "(0012,0064)"),
    ],
)
def test_claims_that_are_missing_or_contradict_are_violations(
    tmp_path: Path, tag: int, vr: str, value: bytes, place: str
) -> None:
    path = one_object(tmp_path)
    put(path, tag, vr, value)
    assert ("violation", "claims", place) in told(read(path))


def test_a_claim_of_clean_pixels_or_faces_needs_its_marker(tmp_path: Path) -> None:
    path = one_object(tmp_path)
    codes = [
        element(0x00080100, "SH", code) + element(0x00080102, "SH", b"DCM")
        for code in (b"113100", b"113101", b"113102", b"999999")
    ]
    put_bytes(path, 0x00120064, sequence(0x00120064, *codes))
    put_bytes(path, 0x00280301, b"")
    assert {(place) for severity, check, place in told(read(path)) if severity == "violation"} == {
        "(0028,0301)", "(0028,0302)", "(0012,0064)",
    }  # fmt: skip


def shifted(path: Path, *attributes: bytes) -> None:
    codes = [element(0x00080100, "SH", c) + element(0x00080102, "SH", b"DCM") for c in (b"113100", b"113107")]
    put_bytes(path, 0x00120064, sequence(0x00120064, *codes))
    put(path, 0x00280303, "CS", b"MODIFIED")


def test_shifted_dates_are_allowed_where_they_are_claimed_unless_nobody_could_have_read_them(
    tmp_path: Path,
) -> None:
    path = one_object(tmp_path)
    shifted(path)
    put(path, 0x00080020, "DA", b"20190131")
    assert read(path).ok
    put(path, 0x00080020, "DA", b"2019.01.31")  # as before 1993
    assert read(path).ok
    put(path, 0x00080020, "DA", b"31.1.19 ")
    assert told(read(path)) == {("violation", "dates", "(0008,0020)")}


def test_an_age_over_ninety_is_found_where_ages_are_kept(tmp_path: Path) -> None:
    path = one_object(tmp_path)
    codes = [element(0x00080100, "SH", c) + element(0x00080102, "SH", b"DCM") for c in (b"113100", b"113108")]
    put_bytes(path, 0x00120064, sequence(0x00120064, *codes))
    put(path, 0x00101010, "AS", b"090Y")
    assert read(path).ok
    put(path, 0x00101010, "AS", b"094Y")
    assert told(read(path)) == {("violation", "ages", "(0010,1010)")}


@pytest.mark.parametrize(
    ("how", "place"),
    [
        (lambda data: b"Hong Gildong".ljust(128, b"\0") + data[128:], "preamble"),
        (lambda data: data + b"Hong", "after the data set"),
        (lambda data: data + b"Hong^Gildong 19551231", "after the data set"),
        (lambda data: data + bytes(16), "after the data set"),
        (lambda data: data[:140] + b"\x02\0\0\0" + data[144:], "byte 132"),
        (lambda data: data.replace(b"FEDAI ", b"Hong G", 1), "(0002,0013)"),
    ],
)
def test_what_hides_in_the_structure_of_the_file_is_found(tmp_path: Path, how: Any, place: str) -> None:
    path = one_object(tmp_path)
    change(path, how)
    assert place in {f.place for f in read(path).findings if f.check == "file structure"}


def test_file_meta_holds_nothing_more_than_it_must(tmp_path: Path) -> None:
    path = one_object(tmp_path)
    extra = element(0x00020016, "AE", b"SEOUL_PACS1 ")
    data = path.read_bytes()
    parts = take_apart(memoryview(data))
    length = int.from_bytes(data[140:144], "little") + len(extra)
    end = parts.meta[-1].end
    path.write_bytes(data[:140] + length.to_bytes(4, "little") + data[144:end] + extra + data[end:])
    assert ("violation", "file structure", "(0002,0016)") in told(read(path))


def test_bytes_in_the_reserved_part_of_a_header_are_found(tmp_path: Path) -> None:
    path = one_object(tmp_path)
    change(path, lambda data: data.replace(b"\xe0\x7f\x10\x00OW\0\0", b"\xe0\x7f\x10\x00OWHi"))
    assert not read(path).ok


def test_objects_that_do_not_fit_together_are_found(tmp_path: Path) -> None:
    images = [radiograph(0, "P1"), radiograph(1, "P2"), radiograph(2, "P3")]
    images[1].StudyInstanceUID = images[0].StudyInstanceUID
    images[2].SeriesInstanceUID = images[0].SeriesInstanceUID
    found = read(folder_of(tmp_path / "a", images))
    messages = {(f.message, f.file) for f in found.findings}
    assert ("a study of more than one patient", "0001.dcm") in messages
    assert ("a series of more than one study", "0003.dcm") in messages
    twice = folder_of(tmp_path / "b", [radiograph(0)])
    (twice / "again.dcm").write_bytes((twice / "0001.dcm").read_bytes())
    found = read(with_evidence(twice))
    assert {f.message for f in found.findings} == {"another file has the same SOP Instance UID"}


def test_a_patient_of_two_sexes_is_for_a_person_to_look_at(tmp_path: Path) -> None:
    out = folder_of(tmp_path, [radiograph(0), radiograph(1)])
    codes = [element(0x00080100, "SH", c) + element(0x00080102, "SH", b"DCM") for c in (b"113100", b"113108")]
    for name, sex in (("0001.dcm", b"M"), ("0002.dcm", b"F")):
        put_bytes(out / name, 0x00120064, sequence(0x00120064, *codes))
        put(out / name, 0x00100040, "CS", sex)
    found = read(out)
    assert found.ok
    assert {f.message for f in found.findings} == {"one patient of two sexes: were two merged?"}


def test_evidence_must_speak_of_each_file_once_and_of_its_bytes(tmp_path: Path) -> None:
    out = folder_of(tmp_path, [radiograph(0), radiograph(1)])
    lines = (out / "evidence.jsonl").read_text().splitlines()

    def says(*new: str) -> set[str]:
        (out / "evidence.jsonl").write_text("\n".join(new) + "\n")
        return {f.message for f in read(out).findings}

    assert says(*lines) == set()
    assert says(lines[0]) == {"no line of evidence"}
    assert says(lines[0], *lines) == {"more than one line of evidence"}
    other = evidence_of(out / "0002.dcm", out) | {"output_sha256": "0" * 64}
    assert says(lines[0], json.dumps(other)) == {"the bytes aren't those of its evidence"}
    assert says(*lines, json.dumps(other | {"path": "gone.dcm"})) == {"speaks of a file that isn't there"}
    assert says(*lines, "not JSON") == {"a line that is no JSON object"}
    noted = evidence_of(out / "0002.dcm", out) | {"note": "010-2345-6789"}
    assert "a telephone number" in says(lines[0], json.dumps(noted))
    (out / "evidence.jsonl").unlink()
    assert {f.message for f in read(out).findings} == {"there is no evidence file"}
    assert verify(out, needs_evidence=False).ok


def test_files_of_another_key_than_the_rest_or_the_current_one_are_named(tmp_path: Path) -> None:
    out = folder_of(tmp_path, [radiograph(number) for number in range(3)])
    entries = [evidence_of(path, out) for path in sorted(out.glob("*.dcm"))]
    entries[1]["key_id"] = "f" * 16
    (out / "evidence.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))

    def named(key_id: str = "") -> list[str]:
        return [f.file for f in verify(out, key_id=key_id).findings if "not of the key" in f.message]

    assert named() == ["0002.dcm"]
    assert named("0123456789abcdef") == ["0002.dcm"]
    assert named("f" * 16) == ["0001.dcm", "0003.dcm"]


def test_a_changed_byte_of_the_pixels_does_not_fit_the_evidence(tmp_path: Path) -> None:
    path = one_object(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert told(read(path)) == {("violation", "evidence", "")}


def test_files_that_are_no_objects_do_not_belong_into_the_folder(tmp_path: Path) -> None:
    path = one_object(tmp_path)
    (tmp_path / "mapping.csv").write_text("MRN-1,p123\n" * 20)
    (tmp_path / "link.dcm").symlink_to(path)
    found = read(path)
    assert {f.file for f in found.findings if f.severity is Severity.VIOLATION} == {"mapping.csv", "link.dcm"}


@pytest.mark.parametrize(
    "code", [b"51185008", b"80891009", b"74964007", b"10200004", b"39607008", b"71388002"]
)
def test_concepts_of_snomed_are_told_from_other_numbers_by_their_check_digit(code: bytes) -> None:
    assert is_snomed(code)
    others = [code[:-1] + bytes([digit]) for digit in b"0123456789" if digit != code[-1]]
    swapped = code[1:2] + code[:1] + code[2:]
    assert not [other for other in (*others, swapped) if is_snomed(other) and other != code]


def test_an_empty_folder_proves_nothing(tmp_path: Path) -> None:
    assert not verify(tmp_path).ok


def test_many_processes_find_what_one_finds(tmp_path: Path) -> None:
    out = folder_of(tmp_path, [radiograph(number) for number in range(5)])
    put(out / "0003.dcm", 0x00080080, "LO", b"Seoul Hospital")
    assert verify(out, workers=2).findings == verify(out).findings


def test_the_key_decides_nothing_for_the_second_reader(tmp_path: Path) -> None:
    for number, secret in enumerate((SECRET, bytes(32))):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(write(Deidentifier(secret).clean(nested())))
    found = read(with_evidence(tmp_path))
    assert found.ok
    assert {f.place for f in found.findings} == {"(0028,0301)"}
