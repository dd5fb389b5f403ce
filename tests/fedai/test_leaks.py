from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedai.demo import leaks
from fedai.demo.leaks import Found, Search

NAMES = ("Hong^Gildong", "MRN-48213", "홍길동", "Müller", "山田太郎")
SEARCH = Search.of(NAMES)
SPELLED = [
    (number, name.encode(encoding))
    for number, name in enumerate(NAMES)
    for encoding in leaks.ENCODINGS
    if name.isascii() or encoding.startswith("utf")
] + [
    (2, "홍길동".encode("euc-kr")),
    (2, "홍길동".encode("iso2022_kr")),
    (3, "Müller".encode("latin-1")),
    (4, "山田太郎".encode("iso2022_jp")),
    (0, b"HONG^GILDONG"),
    (0, b"hong^gildong"),
]


def hits(data: bytes) -> set[int]:
    return {number for _, number in SEARCH.in_bytes(data)}


@pytest.mark.parametrize(("number", "spelled"), SPELLED)
def test_each_spelling_is_found_wherever_it_lies(number: int, spelled: bytes) -> None:
    for before in range(9):
        data = b"\x7f" * before + spelled + b"\x7f" * 5
        assert (before, number) in set(SEARCH.in_bytes(data))


@given(st.binary(max_size=40), st.sampled_from(SPELLED), st.binary(max_size=40))
def test_it_is_found_among_any_bytes(before: bytes, planted: tuple[int, bytes], after: bytes) -> None:
    number, spelled = planted
    assert (len(before), number) in set(SEARCH.in_bytes(before + spelled + after))


@given(st.binary(max_size=30), st.sampled_from([0, 1, 2]), st.binary(max_size=30))
def test_it_is_found_inside_base64_at_every_alignment(before: bytes, number: int, after: bytes) -> None:
    encoded = base64.b64encode(before + NAMES[number].encode() + after)
    assert number in hits(b"content: " + encoded)


@given(st.binary(max_size=300))
def test_nothing_is_found_that_is_not_there(data: bytes) -> None:
    for offset, number in SEARCH.in_bytes(data):
        piece = data[offset : offset + 60]
        spellings = set(leaks._spellings(NAMES[number]))
        assert any(piece.startswith(spelling) for spelling in spellings)


def test_a_name_across_two_pieces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PIECE_BYTES", 16)
    for before in range(40):
        assert hits(b"." * before + b"MRN-48213" + b"." * 7) == {1}


def test_each_identifier_of_a_file_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"MRN-48213 MRN-48213 Hong^Gildong")
    (tmp_path / "b").write_bytes(b"nothing here")
    found = SEARCH.in_files([tmp_path / "a", tmp_path / "b"])
    assert set(found) == {Found(tmp_path / "a", 0, 1), Found(tmp_path / "a", 20, 0)}
    assert SEARCH.in_file(tmp_path / "a", head_bytes=12) == [Found(tmp_path / "a", 0, 1)]


def test_what_is_found_is_named_by_its_number_not_by_its_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"MRN-48213")
    assert "48213" not in repr(SEARCH.in_file(tmp_path / "a"))


def test_nothing_planted_means_nothing_found() -> None:
    assert list(Search.of([]).in_bytes(b"MRN-48213" * 100)) == []
    assert list(SEARCH.in_bytes(b"")) == []
