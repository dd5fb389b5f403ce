"""Files made to break a reader: each comes out clean or goes to quarantine, in bounded time and memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import mutations
import pydicom
import pytest
from dicom_files import SECRET, encode, radiograph
from fedai_site.deidentify import Deidentifier, write
from fedai_site.deidentify.reading import parse
from fedai_site.quarantine import Quarantine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from mutations import MUTATIONS, Mutation, bomb, nested
from pydicom import config
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks.deidentification.corpus import Made, generate  # noqa: E402
from benchmarks.deidentification.leaks import still_there  # noqa: E402

CHILD = Path(__file__).with_name("hostile_child.py")
MEGABYTES = 700
"""What one hostile file of less than 2 MB may make the process grow by, at most."""
SECONDS = 20
"""How long one may take, at most."""
ON_PIXELS = (mutations.another_syntax, mutations.with_a_piece_twice)
"""These make pixels of what was none, or of one syntax those of another: looking at the pixels finds that."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    config.settings.reading_validation_mode, config.settings.writing_validation_mode = before


@cache
def seeds() -> list[Made]:
    """Objects of many kinds, scripts and transfer syntaxes, full of identifiers."""
    return list(generate(36, 11, [], burned=False))


def survive(
    folder: Path, files: dict[str, bytes], megabytes: int = MEGABYTES, depth: str = "header"
) -> dict[str, str]:
    """Clean the files in a process of their own; what became of each. Fails if that crashes or swells."""
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_bytes(SECRET)
    for name, data in files.items():
        (folder / f"{name}.dcm").write_bytes(data)
    (folder / "warm-up").write_bytes(encode(radiograph()))
    command = [sys.executable, str(CHILD), str(folder), str(key), str(SECONDS), depth]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-8:]
    assert done.returncode == 0, f"ended with {done.returncode} at {last}"
    told = json.loads(done.stdout)
    assert told["megabytes"] < megabytes, f"grew by {told['megabytes']} MB"
    return {name: told["outcomes"][f"{name}.dcm"] for name in files}


def leaked(folder: Path, name: str, made: Made) -> list[dict[str, Any]]:
    """The identifiers of the file before its mutation that are in what was written of it.

    Bare numbers are left out: nothing tells the patient's number from another where a mutation destroyed
    Patient ID itself. So are words in codestreams: those that are broken are found when pixels are decoded.
    """
    plants = [
        one
        for one in made.entry["plants"]
        if one["search"] == "text" and one["kind"] != "codestream" and not one["token"].isdigit()
    ]
    return still_there(plants, made.data, (folder / f"{name}.out").read_bytes())


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_mutated_file_comes_out_clean_or_goes_to_quarantine(mutation: Mutation, tmp_path: Path) -> None:
    made = {f"{number:03}": seeds()[number % len(seeds())] for number in range(2 * len(seeds()))}
    files = {name: mutation(one.data, Random(f"{mutation.__name__}/{name}")) for name, one in made.items()}
    outcomes = survive(tmp_path, files, depth="pixels" if mutation in ON_PIXELS else "header")
    written = [name for name, outcome in outcomes.items() if outcome == "written"]
    found = {f"{name} {leak['where']}" for name in written for leak in leaked(tmp_path, name, made[name])}
    assert not found, sorted(found)


def test_a_comment_is_found_in_a_stream_of_another_kind_than_its_syntax_says(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    made = next(one for one in seeds() if one.entry["syntax"].endswith("4.50") and b"JFIF" in one.data)
    data = made.data.replace(b"1.2.840.10008.1.2.4.50\0", b"1.2.840.10008.1.2.4.90\0", 1)
    if survive(tmp_path, {"other": data}, depth="pixels")["other"] == "written":
        plants = [one for one in made.entry["plants"] if one["kind"] == "codestream"]
        assert not still_there(plants, data, (tmp_path / "other.out").read_bytes())


def test_a_file_cut_anywhere_in_its_header_goes_to_quarantine_or_holds_nothing(tmp_path: Path) -> None:
    made = seeds()[0]
    survive(tmp_path, {f"{cut:05}": made.data[:cut] for cut in range(0, 6000, 41)})
    for path in tmp_path.glob("*.out"):
        assert not leaked(tmp_path, path.stem, made), path.name


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("defined", [False, True])
def test_ten_thousand_levels_of_nesting_neither_crash_nor_hang(
    defined: bool, private: bool, tmp_path: Path
) -> None:
    data = encode(radiograph()) + nested(10_000, defined=defined, private=private)
    assert survive(tmp_path, {"deep": data})["deep"] != ""


def test_an_unterminated_sequence_goes_to_quarantine(tmp_path: Path) -> None:
    files = {
        "items": encode(radiograph()) + nested(3, defined=False)[:-24],
        "pixels": encode(radiograph())
        + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\x7f",
        "unknown": encode(radiograph())
        + b"\x09\x00\x01\x10UN\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff",
    }
    outcomes = survive(tmp_path, files)
    for name in files:
        assert outcomes[name] != "written" or (tmp_path / f"{name}.out").stat().st_size < 3000


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0x7FFFFFFE, 0xFFFFFFFE, 0x40000000])
@pytest.mark.parametrize("place", ["before the pixels", "at the end"])
def test_a_length_of_gigabytes_takes_no_more_memory_than_the_file_has(
    length: int, place: str, tmp_path: Path
) -> None:
    claim = struct.pack("<I", length)
    lies = {
        "bytes": b"\x11\x00\x01\x10OB\0\0" + claim + b"zvoukelainth",
        "text": b"\x40\x00\x60\xa1UT\0\0" + claim + b"zvoukelainth",
        "item": b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0" + claim,
    }
    whole = encode(radiograph())
    at = whole.index(b"\x28\x00\x02\x00US") if place == "before the pixels" else len(whole)
    files = {name: whole[:at] + lie + whole[at:] for name, lie in lies.items()}
    outcomes = survive(tmp_path, files, megabytes=200)
    for name in files:
        if outcomes[name] == "written":
            data = (tmp_path / f"{name}.out").read_bytes()
            assert place == "at the end"
            assert b"zvouk" not in data
            assert "SOPInstanceUID" in parse(data)


@pytest.mark.parametrize("trick", ["plain", "long uid first", "false header length", "two streams"])
def test_a_deflate_bomb_goes_to_quarantine_before_it_unfolds(trick: str, tmp_path: Path) -> None:
    data = bomb(3000)
    if trick == "long uid first":
        data = _with_long_uid(data)
    elif trick == "false header length":
        data = data[:140] + struct.pack("<I", 10) + data[144:]
    elif trick == "two streams":
        data = _header_of(data) + _innocent() + data[len(_header_of(data)) :]
    outcome = survive(tmp_path, {"bomb": data})["bomb"]
    assert outcome != "written" or trick == "two streams"  # the first of which is innocent


def _header_of(data: bytes) -> bytes:
    return data[: 144 + int.from_bytes(data[140:144], "little")]


def _innocent() -> bytes:
    """A small deflated stream that ends, for a reader that stops at its end."""
    data = encode(radiograph(), DeflatedExplicitVRLittleEndian)
    return data[len(_header_of(data)) :]


def _with_long_uid(data: bytes) -> bytes:
    """The instance UID of the file header, of 2,000 characters, pushes the transfer syntax far away."""
    at = data.index(b"\x02\x00\x03\x00UI")
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    long = b"\x02\x00\x03\x00UI" + struct.pack("<H", 2000) + b"1." * 1000
    made = data[:at] + long + data[at + 8 + length :]
    size = int.from_bytes(data[140:144], "little") + 2000 - length
    return made[:140] + struct.pack("<I", size) + made[144:]


def test_objects_that_refer_to_each_other_in_a_circle_are_each_cleaned(tmp_path: Path) -> None:
    files = {}
    for number in range(3):
        image, reference = radiograph(number), Dataset()
        reference.ReferencedSOPClassUID = image.SOPClassUID
        reference.ReferencedSOPInstanceUID = radiograph((number + 1) % 3).SOPInstanceUID
        image.ReferencedInstanceSequence = Sequence([reference])
        files[f"{number}"] = encode(image)
    assert set(survive(tmp_path, files).values()) == {"written"}
    objects = [parse((tmp_path / f"{number}.out").read_bytes()) for number in range(3)]
    uids = {one.SOPInstanceUID for one in objects}
    assert {one.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID for one in objects} == uids


def test_a_data_set_that_holds_itself_goes_to_quarantine() -> None:
    image, item = radiograph(), Dataset()
    image.ReferencedInstanceSequence = Sequence([item])
    item.ReferencedInstanceSequence = Sequence([item])
    with pytest.raises(Quarantine):
        Deidentifier(SECRET).clean(image)


def test_impossible_sizes_and_crowds_of_items_are_no_danger(tmp_path: Path) -> None:
    many = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * 100_000
    huge = encode(radiograph(Rows=65535, Columns=65535, NumberOfFrames="2147483647"))
    files = {
        "items": encode(radiograph(PixelData=None)) + many + b"\xfe\xff\xdd\xe0\0\0\0\0",
        "rows": huge,
        "attributes": encode(radiograph(PixelData=None)) + b"".join(
            b"\x51\x00" + struct.pack("<H", number) + b"LO\x04\x00zvou" for number in range(0x1000, 0xFFFF)
        ),
        "backslashes": encode(radiograph(PixelData=None)) + _unlimited_text(b"\\" * (1 << 20)),
        "numbers": encode(radiograph(PixelData=None)) + b"\x70\x00\x22\x00FL\xf8\xff" + bytes(0xFFF8),
    }  # fmt: skip
    survive(tmp_path, files)


def _unlimited_text(value: bytes) -> bytes:
    return b"\x40\x00\x60\xa1UT\0\0" + struct.pack("<I", len(value)) + value


TOKEN, NATIVE = "Zvoukelainth", "홍길순아"
TAGS = some.sampled_from(
    [tag for tag in DicomDictionary if 0x0008 <= tag >> 16 < 0x7FE0 and tag != 0x00080005]
)
CHARACTER_SETS = some.sampled_from(
    ["", "ISO_IR 192", "\\ISO 2022 IR 149", "ISO_IR 100", "GB18030", "NONSENSE"]
)
SYNTAXES = [
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
]  # fmt: skip


def value_of(vr: str, text: str) -> Any:
    """A value of this representation that spells the text where it can."""
    if vr == "SQ":
        return Sequence([])
    if vr in ("DA", "TM", "DT", "AS", "IS", "DS", "UI"):
        return {"DA": "19551231", "TM": "123456.654321", "DT": "19551231123456", "AS": "067Y"}.get(
            vr, "77777777"
        )
    if vr in ("US", "SS", "UL", "SL", "UV", "SV", "AT"):
        return 7
    if vr in ("FL", "FD"):
        return 7.5
    if vr in ("OB", "OW", "OF", "OD", "OL", "OV", "UN"):
        return text.encode().ljust(-(-len(text.encode()) // 8) * 8)
    return text


def element(tag: int, vr: str, text: str) -> DataElement:
    """pydicom puts a known representation in the place of UN, and refuses what doesn't fit it; not here."""
    made = DataElement(tag, "OB" if vr == "UN" else vr, value_of(vr, text))
    made.VR = vr
    return made


@some.composite
def data_sets(draw: Any, depth: int = 0) -> Dataset:
    """A data set of any attributes, private blocks and sequences within sequences; each text identifies."""
    made, text = Dataset(), draw(some.sampled_from([TOKEN, TOKEN.upper(), NATIVE, f"a {TOKEN}^b"]))
    for tag in draw(some.lists(TAGS, max_size=8)):
        vr = draw(some.sampled_from([DicomDictionary[tag][0].split(" ")[0], "LO", "UN", "LT"]))
        if DicomDictionary[tag][0] not in ("NONE",):
            made[tag] = element(tag, vr, text)
    for group in draw(some.lists(some.sampled_from([0x0009, 0x0019, 0x2001]), max_size=2, unique=True)):
        block = made.private_block(
            group, draw(some.sampled_from(["ACME", TOKEN, "SIEMENS CSA HEADER"])), create=True
        )
        vr = draw(some.sampled_from(["LO", "UN", "DS", "OB", "PN"]))
        block.add_new(draw(some.integers(0, 255)), vr, value_of(vr, text))
    if depth < 4 and draw(some.booleans()):
        tag = draw(
            some.sampled_from([0x00081140, 0x0040A730, 0x00400275, 0x0040A170, 0x52009229, 0x30060020])
        )
        made[tag] = DataElement(tag, "SQ", Sequence([draw(data_sets(depth=depth + 1))]))
    return made


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data_sets(), CHARACTER_SETS, some.sampled_from(SYNTAXES))
def test_no_data_set_whatever_it_is_made_of_lets_a_planted_word_through(
    more: Dataset, character_set: str, syntax: Any
) -> None:
    image = radiograph()
    for one in more:
        if one.tag not in image or one.tag.group not in (0x0008, 0x0020, 0x0028):
            image[one.tag] = one
    image.SpecificCharacterSet = character_set
    try:
        data = write(Deidentifier(SECRET).clean(parse(encoded(image, syntax))))
    except Quarantine:
        return
    plants = [
        {"token": text, "search": "text", "kind": "", "where": ""} for text in (TOKEN, NATIVE, "19551231")
    ]
    assert not still_there(plants, b"", data)
    again = pydicom.dcmread(BytesIO(data))
    assert not any(one.tag.is_private for one in again.iterall())


def encoded(image: Dataset, syntax: Any) -> bytes:
    """The file's bytes, or those of the bare radiograph where pydicom can't write such a data set."""
    try:
        return encode(image, syntax)
    except (AttributeError, LookupError, OSError, TypeError, ValueError, struct.error):
        return encode(radiograph(), syntax)


def test_mutations_do_mutate() -> None:
    """Each changes most of the files that it is given; otherwise the tests above would prove nothing."""
    for mutation in mutations.MUTATIONS:
        changed = [mutation(one.data, Random(number)) != one.data for number, one in enumerate(seeds())]
        rare = mutation in (mutations.another_character_set, mutations.without_delimiters)
        least = 0.1 if rare else 0.8
        assert sum(changed) >= least * len(changed), mutation.__name__
