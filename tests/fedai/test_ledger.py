from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedai import ledger as module
from fedai.errors import DataError
from fedai.heads import Heads
from fedai.ledger import GENESIS, Ledger
from fedai.signatures import write_key

LINES = 6


def written(folder: Path, lines: int = LINES) -> Ledger:
    ledger = Ledger(folder / "ledger.jsonl")
    for number in range(lines):
        ledger.append(kind="update", run="r-1", round=number, metrics={"loss": 1e-05 * number, "größe": "é"})
    return ledger


def content(lines: int = LINES) -> list[bytes]:
    with TemporaryDirectory() as folder:
        return written(Path(folder), lines).path.read_bytes().splitlines(keepends=True)


WHOLE = content()


def broken_line(lines: list[bytes]) -> int:
    """The line that `verify` names, or 0 where the chain is whole."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        path.write_bytes(b"".join(lines))
        try:
            Ledger(path).verify()
        except DataError as error:
            return int(error.where.rpartition(":")[2])
    return 0


def test_lines_count_up_and_each_seals_the_one_before(tmp_path: Path) -> None:
    ledger = written(tmp_path)
    lines = list(ledger.lines())
    assert [line["seq"] for line in lines] == list(range(1, LINES + 1))
    assert [line["previous"] for line in lines] == [GENESIS, *(line["hash"] for line in lines[:-1])]
    assert ledger.verify() == LINES
    assert ledger.last() == lines[-1]


def test_nothing_has_left_means_an_empty_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert (ledger.verify(), ledger.last(), list(ledger.lines())) == (0, None, [])


def test_a_line_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    digest = ledger.append(kind="status")
    assert json.loads(ledger.path.read_bytes())["hash"] == digest


@given(st.integers(0, len(b"".join(WHOLE)) - 1), st.integers(0, 7))
def test_any_flipped_bit_is_found_at_its_line(place: int, bit: int) -> None:
    whole = b"".join(WHOLE)
    changed = bytearray(whole)
    changed[place] ^= 1 << bit
    line = whole[:place].count(b"\n") + 1
    assert broken_line([bytes(changed)]) == line


@given(st.integers(0, LINES - 2))
def test_a_dropped_line_is_found_where_it_was(place: int) -> None:
    assert broken_line(WHOLE[:place] + WHOLE[place + 1 :]) == place + 1


@given(st.lists(st.integers(0, LINES - 1), min_size=2, max_size=2, unique=True))
def test_two_swapped_lines_are_found_at_the_first(places: list[int]) -> None:
    first, second = sorted(places)
    lines = list(WHOLE)
    lines[first], lines[second] = lines[second], lines[first]
    assert broken_line(lines) == first + 1


@given(
    st.integers(0, LINES),
    st.sampled_from([*WHOLE, b"\n", b"{}\n", b"[]\n", b"7\n", b"\xff\n", b"[" * 9999 + b"\n"]),
)
def test_an_inserted_line_is_found(place: int, line: bytes) -> None:
    named = broken_line([*WHOLE[:place], line, *WHOLE[place:]])
    assert named == (place + 2 if place < LINES and line == WHOLE[place] else place + 1)


@given(st.integers(1, len(WHOLE[-1]) - 1))
def test_a_torn_last_line_is_found(kept: int) -> None:
    assert broken_line([*WHOLE[:-1], WHOLE[-1][:kept]]) == LINES


def test_lines_of_another_ledger_do_not_fit(tmp_path: Path) -> None:
    other = content(3)
    assert broken_line(WHOLE[:2] + other[2:]) == 3


def test_a_line_that_was_written_anew_with_its_own_hash_breaks_the_next() -> None:
    entry = json.loads(WHOLE[2])
    entry["round"] = 99
    entry["hash"] = module._hash(entry)
    assert broken_line([*WHOLE[:2], module._line(entry), *WHOLE[3:]]) == 4


def test_the_same_words_spelled_otherwise_are_a_change() -> None:
    spelled = WHOLE[0].replace(b"\\u00e9", b"\\u00E9")
    assert spelled != WHOLE[0]
    assert json.loads(spelled) == json.loads(WHOLE[0])
    assert broken_line([spelled, *WHOLE[1:]]) == 1


def test_lines_cut_off_at_the_end_leave_a_whole_chain() -> None:
    """A chain can't know of what comes after it; signed heads do, see test_witness."""
    assert broken_line(WHOLE[:-1]) == 0


ENDS = [WHOLE[-1][:-1], WHOLE[-1][:40], b"\n", b"{}\n", b"[]\n", b'{"seq": 9}\n']


@pytest.mark.parametrize("end", ENDS, ids=map(str, range(len(ENDS))))
def test_nothing_is_appended_to_a_torn_or_changed_last_line(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"".join(WHOLE[:-1]) + end)
    before = path.read_bytes()
    with pytest.raises(DataError, match="torn or was changed"):
        Ledger(path).append(kind="update")
    assert path.read_bytes() == before


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The system then writes a part of what is asked, and no more: as on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_leaves_no_half_line_behind(room: int, tmp_path: Path) -> None:
    ledger = written(tmp_path, 2)
    before = ledger.path.read_bytes()
    with files_no_larger_than(len(before) + room), pytest.raises(DataError, match="nothing was sent"):
        ledger.append(kind="score")
    assert ledger.path.read_bytes() == before
    ledger.append(kind="score")
    assert ledger.verify() == 3


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_leaves_no_half_head_behind(room: int, tmp_path: Path) -> None:
    write_key(tmp_path / "ledger.key")
    heads = Heads(tmp_path / "heads.jsonl", tmp_path / "ledger.key")
    ledger = Ledger(tmp_path / "ledger.jsonl", heads)
    for number in range(9):
        ledger.append(round=number)
    (tmp_path / "ledger.jsonl").rename(tmp_path / "long")  # so that heads are the larger file
    head = heads.sign(10, "0" * 64)
    before = heads.own.read_bytes()
    with files_no_larger_than(len(before) + room), pytest.raises((DataError, OSError)):
        heads.keep(head, "nothing was sent")
    assert heads.own.read_bytes() == before


def test_a_ledger_that_can_not_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    with pytest.raises(DataError):
        Ledger(tmp_path / "ledger.jsonl").append(kind="update")
