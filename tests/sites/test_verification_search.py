from __future__ import annotations

import base64
import random
import time
from pathlib import Path

import numpy as np
import pytest
from dicom_files import radiograph
from fedai_site.verification import Severity, verify
from fedai_site.verification.detectors import detect, is_rrn
from fedai_site.verification.index import build
from fedai_site.verification.known import Kind, Known, Value, kind_of, read_known
from fedai_site.verification.search import CHUNK, Search
from fedai_site.verification.spellings import SEPARATORS, patterns, spellings, squeezed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from verification_files import KNOWN, change, folder_of, known_list, one_object, put, read, with_evidence

from fedai.errors import ConfigError

HANGUL, NAME = "홍길동", "Hong^Gildong"
IMAGE_COMMENTS = 0x00204000


def columns(path: Path, known: Path) -> set[str]:
    """The columns of the list that leaks were found of."""
    found = read(path, known).findings
    return {f.column for f in found if f.check == "known values" and f.severity is Severity.LEAK}


ENCODED = [
    HANGUL.encode("utf-8"),
    HANGUL.encode("cp949"),
    b"\x1b$)C" + HANGUL.encode("euc_kr"),
    HANGUL.encode("iso2022_kr"),
    HANGUL.encode("utf-16-le"),
    HANGUL.encode("utf-16-be"),
    "홍 길동".encode("utf-16-le"),
    "길동^홍".encode(),
    "\x1b$)C홍^\x1b$)C길동".encode("euc_kr"),
    b"Hong^Gildong=" + "홍^길동".encode(),
    b"hong gildong",
    b"GILDONG, HONG",
    b"HONGGILDONG",
    b"Gildong_Hong",
    b"PT:HongGildong/1",
    "Ｈｏｎｇ　Ｇｉｌｄｏｎｇ".encode(),
    "Hong^Gildong".encode("utf-16-le"),
    "Hong^Gildong".encode("utf-16-be"),
    base64.b64encode(b"Patient: Hong^Gildong"),
    base64.b64encode(b"x" + HANGUL.encode("cp949") + b"yz"),
    b"Hong^Gildong".hex().encode(),
    b"Hong^Gildong".hex(" ").upper().encode(),
]


@pytest.mark.parametrize("value", ENCODED, ids=range(len(ENCODED)))
def test_a_known_name_is_found_in_every_encoding_and_order(tmp_path: Path, value: bytes) -> None:
    path = one_object(tmp_path / "out")
    put(path, IMAGE_COMMENTS, "LT", value)
    assert columns(path, known_list(tmp_path)) & {"이름", "name"}


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (b"MRN-448211", "patient_id"),
        (b"mrn 448211", "patient_id"),
        (b"id MRN448211 x", "patient_id"),
        (b"77310052", "patient_id"),  # without its leading zeros
        (b"01023456789", "phone"),
        (b"(010) 2345 6789", "phone"),
        (b"+82 10-2345-6789", "phone"),
        (b"551231 1234567", "rrn"),
        (b"A202400917", "accession"),
        (b"1955-12-31", "birth_date"),
        (b"born 31.12.1955", "birth_date"),
        (b"12/31/1955", "birth_date"),
        (b"Dec 31, 1955", "birth_date"),
        (b"31st of December 1955".replace(b"of ", b""), "birth_date"),
        ("1955년 12월 31일생".encode(), "birth_date"),
        (b"19551231101500", "birth_date"),
        ("서울시 종로구 세종대로 209".encode("cp949"), "address"),
        ("Hauptstrasse 5, Köln".encode("latin-1"), "address"),
        ("MÜLLER JÖRG KARL".encode(), "name"),
        ("Jörg Müller".encode("latin-1"), "name"),
        (b"Gildong", "name"),  # one part, as a word
    ],
)
def test_a_known_number_date_or_address_is_found_however_it_is_written(
    tmp_path: Path, value: bytes, column: str
) -> None:
    path = one_object(tmp_path / "out")
    put(path, IMAGE_COMMENTS, "LT", value)
    assert any(column in found for found in columns(path, known_list(tmp_path)))


@pytest.mark.parametrize(
    "text", ["Gildongstone", "1234482115", "MRN-4482119", "195512310", "28 December 1955"]
)
def test_what_only_resembles_a_known_value_is_not_found(tmp_path: Path, text: str) -> None:
    path = one_object(tmp_path / "out")
    put(path, IMAGE_COMMENTS, "LT", text.encode())
    assert columns(path, known_list(tmp_path)) == set()


def test_known_values_are_found_wherever_they_are_in_the_file(tmp_path: Path) -> None:
    known = known_list(tmp_path)
    where = {
        "preamble": lambda data: b"Hong^Gildong".ljust(128, b"\0") + data[128:],
        "after the data set": lambda data: data + b"Hong^Gildong",
        "(7FE0,0010)": lambda data: data[:-40] + b"Hong^Gildong" + data[-28:],
    }
    for place, how in where.items():
        path = one_object(tmp_path / place.strip("()"))
        change(path, how)
        found = read(path, known).findings
        assert place in {f.place for f in found if f.check == "known values"}, place


def test_ramps_of_grey_values_that_look_like_digits_are_for_a_person_to_look_at(tmp_path: Path) -> None:
    known = known_list(tmp_path, "mrn\n456789\n")
    ramp = np.tile(np.arange(40, 70, dtype=np.uint16), 32 * 32 // 30 + 1)[: 32 * 32]
    out = folder_of(tmp_path / "a", [radiograph(rows=32, columns=32, PixelData=ramp.tobytes())])
    found = verify(out, known)
    assert found.ok
    assert {f.severity for f in found.findings if f.column == "mrn"} == {Severity.LOOK}
    flat = bytes(2 * 1000) + b"456789" + bytes(42)
    # Sixteen stored bits: the engine empties bits that are not stored.
    whole = radiograph(rows=32, columns=32, BitsStored=16, HighBit=15, PixelData=flat)
    out = folder_of(tmp_path / "b", [whole])
    assert not verify(out, known).ok


def test_known_values_are_found_in_large_pixels_across_the_borders_of_chunks(tmp_path: Path) -> None:
    known = build(Known((Value(NAME, Kind.NAME, "name"),), 1, ("name",), ()))
    noise = np.random.default_rng(0).integers(0, 256, 2 * CHUNK, np.uint8).tobytes()
    for at in (0, CHUNK - 5, CHUNK, len(noise) - 12):
        data = noise[:at] + b"HONG^GILDONG" + noise[at + 12 :]
        hits = {(hit.start, hit.end) for hit in known.search.hits(memoryview(data), binary=True)}
        assert hits == {(at, at + 12), (at + 5, at + 12)}  # the whole name, and the given name


def test_names_of_files_and_folders_are_searched_and_not_repeated_in_the_report(tmp_path: Path) -> None:
    path = one_object(tmp_path / "out" / "Hong_Gildong")
    path.rename(path.with_name("mrn448211.dcm"))
    (path.parent / "evidence.jsonl").rename(tmp_path / "out" / "evidence.jsonl")
    with_evidence(tmp_path / "out")
    found = verify(tmp_path / "out", known_list(tmp_path))
    assert {"file name", "folder name"} <= {f.place for f in found.findings}
    assert not any("ildong" in f.file or "448211" in f.file for f in found.findings)


def test_evidence_is_searched_for_known_values(tmp_path: Path) -> None:
    path = one_object(tmp_path / "out")
    file = path.parent / "evidence.jsonl"
    file.write_text(file.read_text().replace('"keep"', '"Hong Gildong"'))
    assert columns(path, known_list(tmp_path)) == {"name"}


def test_short_names_are_found_as_words_of_text_only(tmp_path: Path) -> None:
    known = known_list(tmp_path, "name,chart\nKim^An,7\n")
    path = one_object(tmp_path / "a")
    put(path, IMAGE_COMMENTS, "LT", b"seen by kim")
    assert columns(path, known) == {"name"}
    put(path, IMAGE_COMMENTS, "LT", b"the plan is an animal; 7 of 9")
    assert {f.severity for f in read(path, known).findings if f.check == "known values"} == {Severity.LEAK}
    put(path, IMAGE_COMMENTS, "LT", b"skimming")
    assert columns(path, known) == set()


def test_a_shifted_date_that_is_another_one_s_birthday_is_no_leak_unless_the_list_says_whose(
    tmp_path: Path,
) -> None:
    from test_verification_reader import shifted

    path = one_object(tmp_path / "out")
    shifted(path)
    put(path, 0x00080020, "DA", b"19551231")
    found = read(path, known_list(tmp_path))
    assert found.ok
    assert Severity.LOOK in {f.severity for f in found.findings if f.column == "birth_date"}
    from pydicom import dcmread

    pseudonym = str(dcmread(path).PatientID)
    own = known_list(tmp_path, f"pseudonym,birth_date\n{pseudonym},1955-12-31\n")
    assert not read(path, own).ok
    others = known_list(tmp_path, "pseudonym,birth_date\npabc,1955-12-31\n")
    assert read(path, others).ok


PATIENTS = 2000


def invented(number: int, seed: int = 5) -> str:
    """A list of patients with names that are common words too."""
    chance = random.Random(seed)
    family = [
        "Kim",
        "Lee",
        "Park",
        "Choi",
        "Jung",
        "Head",
        "Hand",
        "Young",
        "Long",
        "No",
        "An",
        "Ma",
        "Min",
        "Hu",
    ]
    given = ["Minsu", "Jiwoo", "Sun", "Jun", "Chest", "Max", "Mary", "Axial", "Seoyeon"]
    lines = ["name,이름,mrn,birth_date,phone"]
    for _ in range(number):
        hangul = "".join(chance.choice("김이박최정강조윤장임한오서신권황안송류홍민지현") for _ in range(3))
        born = f"{chance.randint(1930, 2015)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        phone = f"010-{chance.randint(2000, 9999)}-{chance.randint(0, 9999):04}"
        name = f"{chance.choice(family)}^{chance.choice(given)}"
        lines.append(f"{name},{hangul},{chance.randint(100000, 9999999)},{born},{phone}")
    return "\n".join(lines)


def test_a_clean_folder_stays_clean_with_a_long_list_of_common_names(tmp_path: Path) -> None:
    images = [
        radiograph(
            number, rows=64, columns=64, PatientPosition="HFS", BodyPartExamined="CHEST", RescaleType="HU",
            RescaleSlope="1.0078125", ImagerPixelSpacing=[0.1438291, 0.1438291], DerivationDescription="x",
            Manufacturer="SIEMENS", SoftwareVersions="VB1234567",
        )
        for number in range(6)
    ]  # fmt: skip
    found = verify(folder_of(tmp_path / "out", images), known_list(tmp_path, invented(PATIENTS)))
    assert found.ok, found.findings


def test_ten_thousand_patients_are_searched_for_at_twenty_megabytes_a_second(tmp_path: Path) -> None:
    index = build(read_known(known_list(tmp_path, invented(10_000))))
    data = memoryview(np.random.default_rng(1).integers(0, 256, 16 * 2**20, np.uint8).tobytes())
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        list(index.search.hits(data, binary=True))
        best = min(best, time.process_time() - begun)
    assert len(index.patterns) > 50_000
    assert 16 / best > 20


PARTS = st.text(
    st.sampled_from("abcdefghijklmnopqrstuvwxyzABCXYZäöüéßñçøåčłž홍길동김민지영수박山田太郎さくらタナカ李小龙ИванΝίκος"),
    min_size=2, max_size=8,
)  # fmt: skip
GAPS = st.sampled_from(["^", " ", "", ", ", "_", "-", ".", "^^", "  ", "\t"])
CODECS = (
    "utf-8",
    "utf-16-le",
    "utf-16-be",
    "cp949",
    "shift_jis",
    "gb18030",
    "latin-1",
    "iso2022_jp_2",
    "iso2022_kr",
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(PARTS, min_size=2, max_size=3), gap=GAPS, codec=st.sampled_from(CODECS),
    case=st.sampled_from([str, str.upper, str.lower]), backwards=st.booleans(), before=st.binary(max_size=40),
    after=st.binary(max_size=40),
)  # fmt: skip
def test_any_name_in_any_encoding_is_found_among_any_bytes(
    parts: list[str], gap: str, codec: str, case: object, backwards: bool, before: bytes, after: bytes
) -> None:
    value = Value("^".join(parts), Kind.NAME, "name")
    text = gap.join(reversed(parts) if backwards else parts)
    text = text.upper() if case is str.upper else text.lower() if case is str.lower else text
    try:
        written = text.encode(codec)
    except UnicodeError:
        return
    before, after = (side.translate(None, b"\x1b\x0e\x0f") for side in (before, after))
    if len(squeezed(written)) < 6 or "ß" in text or (codec == "latin-1" and not text.isascii()):
        return
    search = build(Known((value,), 1, ("name",), ())).search
    assert list(search.hits(memoryview(before + written + after))), (text, codec)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(min_size=6, max_size=12), min_size=1, max_size=20), st.binary(max_size=400), st.data()
)
def test_the_search_finds_exactly_what_a_plain_search_finds(
    wanted: list[bytes], noise: bytes, data: st.DataObject
) -> None:
    found = {squeezed(pattern) for pattern in wanted}
    found = {pattern for pattern in found if len(pattern) >= 6}
    for pattern in found:
        at = data.draw(st.integers(0, len(noise)))
        noise = noise[:at] + pattern + noise[at:]
    text = noise.translate(bytes(range(256)).lower(), SEPARATORS)
    expected = {p for p in found if p in text}
    assert {hit.pattern for hit in Search(found).hits(memoryview(noise), binary=True)} == expected


def test_the_place_of_a_hit_is_that_of_its_bytes() -> None:
    data = b"\x1b$)C--H o-n.g^G\0i\0ldong--"
    hit = next(iter(Search({b"honggildong"}).hits(memoryview(data))))
    assert data[hit.start : hit.end] == b"H o-n.g^G\0i\0ldong"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_the_list_is_read_in_the_encodings_that_hospitals_write(tmp_path: Path, encoding: str) -> None:
    text = KNOWN.splitlines()[0] + "\n" + KNOWN.splitlines()[1] + "\n"
    known = read_known(known_list(tmp_path, text, encoding))
    assert known.not_searched == ("sex",)
    assert Value(HANGUL, Kind.NAME, "이름") in known.values
    assert Value("551231-1234567", Kind.NUMBER, "rrn") in known.values


def test_a_list_without_headings_is_searched_and_its_first_line_is_not_printed(tmp_path: Path) -> None:
    known = read_known(known_list(tmp_path, "Hong^Gildong;448211\nKim^Yuna;992211\n"))
    assert known.columns == ("column 1", "column 2")
    assert known.rows == 2
    assert "Hong^Gildong" in {value.text for value in known.values}


@pytest.mark.parametrize("text", ["", "\n\n", "name\n"])
def test_an_empty_list_searches_nothing_and_says_so(tmp_path: Path, text: str) -> None:
    path = known_list(tmp_path, text)
    if text == "name\n":
        assert read_known(path).values == ()
    else:
        with pytest.raises(ConfigError):
            read_known(path)


@pytest.mark.parametrize(
    ("column", "text", "kind"),
    [
        ("StudyInstanceUID", "1.2.840.113619.2.55.3", Kind.UID),
        ("생년월일", "1955.12.31", Kind.DATE),
        ("column 3", "19551231", Kind.DATE),
        ("patient_id", "19551231", Kind.NUMBER),
        ("담당의사", "김철수", Kind.NAME),
        ("whatever", "A-99812", Kind.NUMBER),
        ("whatever", "Seoul", Kind.TEXT),
    ],
)
def test_the_kind_of_a_known_value_is_told_from_its_heading_and_form(
    column: str, text: str, kind: Kind
) -> None:
    assert kind_of(column, text) is kind


def test_a_known_uid_is_found_in_references(tmp_path: Path) -> None:
    path = one_object(tmp_path / "out")
    put(path, IMAGE_COMMENTS, "LT", b"see 1.2.840.113619.2.55.3.604688")
    known = known_list(tmp_path, "study\n1.2.840.113619.2.55.3.604688\n")
    assert columns(path, known) == {"study"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("RRN 551231-1234567 given", "check digit"),
        ("5512311234567", "check digit"),
        ("551231-1234564", "form of a Korean"),
        ("call 010-2345-6789", "telephone"),
        ("01023456789", "telephone"),
        ("02-123-4567", "telephone"),
        ("(415) 555-0132", "telephone"),
        ("+49 30 1234567", "telephone"),
        ("+82-10-2345-6789", "telephone"),
        ("hong.gildong@snu.ac.kr", "e-mail"),
        ("SSN 123-45-6789", "social security"),
        ("https://pacs.example/1", "web"),
        ("stored on 192.168.10.4", "network"),
    ],
)
def test_identifiers_are_known_by_their_form(text: str, what: str) -> None:
    assert any(what in message for _, message in detect(text))


@pytest.mark.parametrize(
    "text",
    ["syngo CT "
    "2012B", "1.3.12.2.1107.5", "VA40A 20.1.0.5", "0.9765625\\0.9765625", "HFS 5.0 x 3.0", "20240101",
     "p6k2m4x7q2w3e4r5t6y7u2i3o4p", "2.25.329800735698586629295641978511506172918", "B30f 120kV "
     "200mAs", "000-12-3456"],
)  # fmt: skip
def test_technical_text_has_no_form_of_an_identifier(text: str) -> None:
    assert list(detect(text)) == []


def test_the_check_digit_of_a_registration_number_is_that_of_the_rule() -> None:
    assert is_rrn("5512311234567")
    assert not is_rrn("5512311234565")
    right = [digit for digit in "0123456789" if is_rrn("900101212345" + digit)]
    assert len(right) == 1


def test_patterns_are_squeezed_and_long_enough_to_mean_something() -> None:
    value = Value("Ng^Li", Kind.NAME, "name")
    assert all(len(p) >= 6 for spelling in spellings(value) for p in patterns(spelling))
