"""Files that want to crash, hang or flood the second reader: each is reported as unreadable."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from dicom_files import encode, radiograph
from fedai_site.verification import Findings, verify
from fedai_site.verification.part10 import take_apart
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from verification_files import element, known_list, one_object

ITEM = b"\xfe\xff\x00\xe0"
OPEN = b"\xff\xff\xff\xff"


def meta(syntax: bytes = b"1.2.840.10008.1.2.1\0") -> bytes:
    body = element(0x00020010, "UI", syntax)
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(body))) + body


def readable(tmp_path: Path, data: bytes) -> Findings:
    """The findings on a folder of one file with these bytes, read within limits of time."""
    (tmp_path / "hostile.dcm").write_bytes(data)
    begun = time.monotonic()
    found = verify(tmp_path, needs_evidence=False)
    assert time.monotonic() - begun < 120
    return found


def deep(levels: int) -> bytes:
    """Sequences of undefined length in each other, never closed."""
    return (b"\x08\x00\x40\x11SQ\0\0" + OPEN + ITEM + OPEN) * levels


LAZY = {
    "a length beyond the file": element(0x00080008, "CS", b"")[:6] + b"\xff\x7f",
    "two gigabytes": b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", 2**31) + b"abcd",
    "deep nesting": deep(5000),
    "an open sequence": deep(1),
    "an item longer than its sequence": element(0x00081140, "SQ", ITEM + struct.pack("<I", 999) + b"abcd"),
    "no item at all": element(0x00081140, "SQ", b"abcdefgh"),
    "open pixels": b"\xe0\x7f\x10\x00OB\0\0" + OPEN + ITEM + struct.pack("<I", 4) + b"abcd",
    "pixels in pieces that don't fit": b"\xe0\x7f\x10\x00OB\0\0"
    + OPEN
    + ITEM
    + struct.pack("<I", 2**30)
    + b"a",
    "a million attributes": b"".join(
        element(0x00081140, "SQ", ITEM + struct.pack("<I", 2000) + element(0x00080008, "CS", b"") * 250)
        for _ in range(1)
    ),
}


@pytest.mark.parametrize("name", LAZY)
def test_a_broken_data_set_is_reported_as_unreadable(tmp_path: Path, name: str) -> None:
    found = readable(tmp_path, meta() + LAZY[name])
    assert not found.ok
    assert any("can't be read" in f.message for f in found.findings), found.findings


def test_what_follows_a_broken_sequence_of_known_length_is_read(tmp_path: Path) -> None:
    broken = element(0x00081140, "SQ", b"no item at all, of Hong") + element(
        0x00100010, "PN", b"Hong^Gildong"
    )
    parts = take_apart(memoryview(meta() + broken))
    assert not parts.broken
    assert parts.text(0x00100010) == "Hong^Gildong"
    assert parts.text(0x00081140).startswith("no item at all")


@pytest.mark.slow
def test_more_attributes_than_any_object_has_are_not_read(tmp_path: Path) -> None:
    item = ITEM + struct.pack("<I", 8) + b"\x08\x00\x08\x00CS\0\0"
    data = meta() + element(0x00081140, "SQ", item * 510_000)
    assert any("more attributes" in f.message for f in readable(tmp_path, data).findings)


@pytest.mark.parametrize("size", [0, 1, 131, 132, 133, 140, 200])
def test_a_file_of_a_few_bytes_is_reported(tmp_path: Path, size: int) -> None:
    assert not readable(tmp_path, (meta() + bytes(64))[:size]).ok


def test_a_deflate_bomb_is_inflated_to_a_limit_only(tmp_path: Path) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(stream.compress(bytes(2**20)) for _ in range(64)) + stream.flush()
    data = memoryview(meta(b"1.2.840.10008.1.2.1.99") + bomb)
    tracemalloc.start()
    parts = take_apart(data, 2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "inflates to too much" in parts.broken
    assert peak < 8 * 2**20
    assert not readable(tmp_path, bytes(data)).ok


def test_a_deflated_data_set_that_is_cut_or_followed_by_more_is_reported(tmp_path: Path) -> None:
    whole = encode(radiograph(), DeflatedExplicitVRLittleEndian)
    assert any("can't be read" in f.message for f in readable(tmp_path, whole[:-9]).findings)
    assert any(
        "after the deflated" in f.message for f in readable(tmp_path, whole + b"Hong Gildong").findings
    )


SAMPLES = [
    encode(radiograph(PatientComments="x"), syntax)
    for syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian)
] + [meta() + deep(3) + encode(radiograph())[400:]]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sample=st.sampled_from(SAMPLES), cut=st.integers(0, 2000))
def test_a_file_cut_anywhere_never_crashes_the_parser(sample: bytes, cut: int) -> None:
    parts = take_apart(memoryview(sample[: max(132, cut)]))
    assert all(e.end <= len(parts.content) for e in parts.elements)


@settings(max_examples=300, deadline=None)
@given(
    sample=st.sampled_from(SAMPLES), at=st.lists(st.integers(132, 1500), min_size=1, max_size=12),
    to=st.binary(min_size=12, max_size=12),
)  # fmt: skip
def test_a_file_with_changed_bytes_never_crashes_the_parser(sample: bytes, at: list[int], to: bytes) -> None:
    data = bytearray(sample)
    for offset, byte in zip(at, to, strict=False):
        if offset < len(data):
            data[offset] = byte
    parts = take_apart(memoryview(bytes(data)))
    assert parts.left_over[0] <= parts.left_over[1] == len(parts.content)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=3000))
def test_bytes_of_any_kind_are_read_to_the_end(tmp_path: Path, body: bytes) -> None:
    assert not readable(tmp_path, meta() + body).ok


def test_pixels_that_cannot_be_decoded_are_a_violation(tmp_path: Path) -> None:
    path = one_object(tmp_path / "out")
    data = path.read_bytes()
    at = data.index(b"1.2.840.10008.1.2.1\0")
    syntax = element(0x00020010, "UI", JPEG2000Lossless.encode())
    length = (int.from_bytes(data[140:144], "little") + len(syntax) - 28).to_bytes(4, "little")
    path.write_bytes(data[:140] + length + data[144 : at - 8] + syntax + data[at + 20 :])
    assert "pixels" in {f.check for f in verify(path.parent).findings}


def test_a_known_value_in_an_unreadable_file_is_found_all_the_same(tmp_path: Path) -> None:
    path = one_object(tmp_path / "out")
    path.write_bytes(path.read_bytes()[:-20] + b"Hong^Gildong")
    found = verify(path.parent, known_list(tmp_path)).findings
    assert {f.column for f in found if f.check == "known values"} == {"name"}
    (tmp_path / "out" / "0001.dcm").write_bytes(b"no DICOM at all, of Hong^Gildong" * 9)
    found = verify(path.parent, known_list(tmp_path)).findings
    assert {f.column for f in found if f.check == "known values"} == {"name"}
