"""Show 5 of the ledger: whatever is done to it, chain, heads or witness tell, and name the line."""

from __future__ import annotations

import fcntl
import json
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fedai_site.home import SiteHome, create_home, open_home
from fedai_site.witness import heads_of, ledger_of, verify
from homes import settings_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedai import ledger as module
from fedai.errors import ConfigError, DataError
from fedai.heads import contradiction, head_fault
from fedai.ledger import Ledger, _hash, _line
from fedai.signatures import read_key, write_key

LINES = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    """A home whose ledger has six lines, and a witness that got each head."""
    folder = tmp_path_factory.mktemp("ledger")
    (folder / "witness").mkdir()
    home = create_home(folder / "north", settings_for(folder, witness=str(folder / "witness")))
    ledger = ledger_of(home)
    for number in range(LINES):
        ledger.append(kind="update", run="r-1", round=number, metrics={"loss": 1e-05 * number})
    return home


@pytest.fixture
def home(made: SiteHome) -> Any:
    """The home; what a test does to ledger, heads and witness is undone after it."""
    with undone(made):
        yield made


class undone:
    """Puts a home's ledger and heads back as they were."""

    def __init__(self, home: SiteHome) -> None:
        heads = heads_of(home)
        assert heads.witness
        self.kept = {path: path.read_bytes() for path in (home.ledger, heads.own, heads.witness, heads.key)}

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        for path, content in self.kept.items():
            path.write_bytes(content)


def broken_line(home: SiteHome, witness: Path | None = None) -> int:
    """The line that `verify` names, 0 where all is whole, -1 where it is a line of the heads."""
    try:
        verify(home, witness)
    except DataError as error:
        file, _, line = error.where.rpartition(":")
        return int(line) if file == str(home.ledger) else -1
    return 0


def lines_of(home: SiteHome) -> list[bytes]:
    return home.ledger.read_bytes().splitlines(keepends=True)


def rewritten(lines: list[bytes], number: int) -> list[bytes]:
    """The lines with another content from line `number` on, chained anew as the site's own code would."""
    entries = [json.loads(line) for line in lines]
    for place in range(number - 1, len(entries)):
        entries[place]["round"] += 100
        entries[place]["previous"] = entries[place - 1]["hash"] if place else "0" * 64
        entries[place]["hash"] = _hash(entries[place])
    return [_line(entry) for entry in entries]


def sealed_anew(home: SiteHome, lines: list[bytes]) -> None:
    """Sign these lines and heads for them with the site's own key and write them; not the witness's."""
    heads = heads_of(home)
    heads.own.unlink()
    signed = b""
    for entry in map(json.loads, lines):
        head = heads.sign(entry["seq"], entry["hash"])
        replace(heads, witness=None).keep(head)
        signed += _line({**entry, "signature": head["signature"]})
    home.ledger.write_bytes(signed)


def test_each_line_is_sealed_by_a_signed_head_beside_it_and_at_the_witness(home: SiteHome) -> None:
    heads = heads_of(home)
    assert heads.witness
    assert heads.own.read_bytes() == heads.witness.read_bytes()
    told = [json.loads(line) for line in heads.own.read_bytes().splitlines()]
    assert [head["lines"] for head in told] == list(range(1, LINES + 1))
    assert [head["hash"] for head in told] == [line["hash"] for line in Ledger(home.ledger).lines()]
    assert {head_fault(head) for head in told} == {""}
    assert vars(verify(home)) == {"lines": LINES, "heads": LINES, "witnessed": LINES, "unheaded": 0}
    signatures = [line["signature"] for line in Ledger(home.ledger).lines()]
    assert [head["signature"] for head in told] == signatures, "a line bears its head's signature itself"


def test_the_ledgers_key_is_the_owners_alone(home: SiteHome) -> None:
    assert stat.S_IMODE(home.ledger_key.stat().st_mode) == 0o600


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_of_the_ledger_is_named_at_its_line(made: SiteHome, data: st.DataObject) -> None:
    with undone(made):
        whole = made.ledger.read_bytes()
        place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
        changed = bytearray(whole)
        changed[place] ^= 1 << bit
        made.ledger.write_bytes(bytes(changed))
        assert broken_line(made) == whole[:place].count(b"\n") + 1


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_of_the_heads_is_told(made: SiteHome, data: st.DataObject) -> None:
    heads = heads_of(made)
    with undone(made):
        path = data.draw(st.sampled_from([heads.own, heads.witness]))
        assert path
        changed = bytearray(path.read_bytes())
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(bytes(changed))
        assert broken_line(made) != 0


@pytest.mark.parametrize("place", range(LINES))
def test_a_dropped_line_is_named(place: int, home: SiteHome) -> None:
    lines = lines_of(home)
    home.ledger.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
    assert broken_line(home) == place + 1


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 5), (2, 4), (4, 5)])
def test_two_swapped_lines_are_named_at_the_first(one: int, other: int, home: SiteHome) -> None:
    lines = lines_of(home)
    lines[one], lines[other] = lines[other], lines[one]
    home.ledger.write_bytes(b"".join(lines))
    assert broken_line(home) == one + 1


@pytest.mark.parametrize("kept", range(LINES))
def test_a_tail_that_was_cut_off_is_named_by_the_heads(kept: int, home: SiteHome) -> None:
    home.ledger.write_bytes(b"".join(lines_of(home)[:kept]))
    assert broken_line(home) == kept + 1


@pytest.mark.parametrize("kept", range(LINES))
def test_a_tail_cut_off_with_its_heads_is_named_by_the_witness(kept: int, home: SiteHome) -> None:
    heads = heads_of(home)
    home.ledger.write_bytes(b"".join(lines_of(home)[:kept]))
    heads.own.write_bytes(b"".join(heads.own.read_bytes().splitlines(keepends=True)[:kept]))
    assert broken_line(home) == kept + 1


@pytest.mark.parametrize("number", range(1, LINES + 1))
def test_lines_rewritten_with_the_sites_own_key_are_named_by_the_witness(number: int, home: SiteHome) -> None:
    sealed_anew(home, rewritten(lines_of(home), number))
    assert Ledger(home.ledger).verify() == LINES, "the chain itself is whole"
    assert broken_line(home) == number


def test_lines_rewritten_without_the_key_are_named_by_the_heads_beside_them(home: SiteHome) -> None:
    home.ledger.write_bytes(b"".join(rewritten(lines_of(home), 3)))
    heads = heads_of(home)
    assert heads.witness
    heads.witness.unlink()
    assert broken_line(home) == 3


def test_a_rewritten_ledger_is_named_by_what_the_server_recorded(home: SiteHome, tmp_path: Path) -> None:
    heads = heads_of(home)
    told = [json.loads(line) for line in heads.own.read_bytes().splitlines()]
    record = tmp_path / "records" / "r-1" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"ledger_heads": {"north": told[1:4], "east": []}}))
    assert verify(home, record).witnessed == 3
    assert verify(home, tmp_path / "records").witnessed == 3
    alone = SiteHome(home.folder, home.settings.model_copy(update={"witness": None}))
    assert (verify(alone).witnessed, verify(alone, record).witnessed) == (0, 3)
    sealed_anew(home, rewritten(lines_of(home), 4))
    assert broken_line(home, record) == 4
    sealed_anew(home, lines_of(home)[:2])
    assert broken_line(home, tmp_path / "records") == 3


def test_heads_of_another_key_are_none_of_this_ledger(home: SiteHome, tmp_path: Path) -> None:
    lines = lines_of(home)
    home.ledger_key.unlink()
    home.ledger_key.with_name("ledger.key.pub").unlink()
    write_key(home.ledger_key)
    sealed_anew(home, lines)
    assert broken_line(home) == 1


def test_lines_that_nobody_signed_are_named(home: SiteHome) -> None:
    ledger = Ledger(home.ledger)
    ledger.append(kind="update", round=7)
    assert broken_line(home) == LINES + 1
    with pytest.raises(DataError, match="line 7: it isn't signed: it is not known to be this home's"):
        verify(home)
    ledger.append(kind="update", round=8)
    assert broken_line(home) == LINES + 1
    heads_of(home).own.unlink()
    assert broken_line(home) == 1


def test_a_line_that_somebody_appended_is_never_vouched_for_by_a_later_head(home: SiteHome) -> None:
    agent = ledger_of(home)
    agent.append(kind="update", round=7)
    Ledger(home.ledger).append(kind="update", round=8)
    before = [home.ledger.read_bytes(), heads_of(home).own.read_bytes()]
    for ledger in (agent, ledger_of(home)):  # the process that writes, and one that begins
        with pytest.raises(DataError, match=r"line 8: it isn't signed.*nothing was sent") as refused:
            ledger.append(kind="update", round=9)
        assert "keep a copy" in refused.value.hint
    assert [home.ledger.read_bytes(), heads_of(home).own.read_bytes()] == before
    home.ledger.write_bytes(b"".join(lines_of(home)[:-1]))  # as the hint says
    agent.append(kind="update", round=8)
    assert vars(verify(home)) == {"lines": 8, "heads": 8, "witnessed": 8, "unheaded": 0}


def test_a_line_with_a_signature_of_another_line_or_key_is_not_the_homes(
    home: SiteHome, tmp_path: Path
) -> None:
    write_key(tmp_path / "other.key")
    other = replace(heads_of(home), key=tmp_path / "other.key")
    last = Ledger(home.ledger).last()
    assert last
    Ledger(home.ledger).append(kind="update", round=8)
    whole, forged = lines_of(home)[:-1], json.loads(lines_of(home)[-1])
    signatures = [other.sign(7, forged["hash"]), heads_of(home).sign(8, forged["hash"]), last]
    for signature in (*(one["signature"] for one in signatures), None, 7, "", "ab" * 64):
        home.ledger.write_bytes(b"".join([*whole, _line({**forged, "signature": signature})]))
        assert broken_line(home) == LINES + 1
        with pytest.raises(DataError, match="it isn't signed"):
            ledger_of(home).append(kind="update", round=9)


def test_a_signature_that_is_spelled_otherwise_is_a_change(home: SiteHome) -> None:
    first = json.loads(lines_of(home)[0])
    spelled = _line({**first, "signature": first["signature"].upper()})
    home.ledger.write_bytes(b"".join([spelled, *lines_of(home)[1:]]))
    assert broken_line(home) == 1


def test_an_unsigned_line_among_signed_ones_is_named_though_a_head_vouches_for_a_later_one(
    home: SiteHome,
) -> None:
    heads = heads_of(home)
    Ledger(home.ledger).append(kind="update", round=7)
    entry = json.loads(lines_of(home)[-1])
    heads.keep(heads.sign(entry["seq"], entry["hash"]))  # as releases before signed over it
    assert broken_line(home) == LINES + 1


@pytest.mark.parametrize("cut", [1, 2, LINES])
def test_nothing_is_appended_where_lines_are_gone_that_a_head_vouches_for(cut: int, home: SiteHome) -> None:
    home.ledger.write_bytes(b"".join(lines_of(home)[:-cut]))
    before = home.ledger.read_bytes()
    with pytest.raises(DataError, match=f"line {LINES}: it is missing or was rewritten"):
        ledger_of(home).append(kind="status")
    assert home.ledger.read_bytes() == before


def test_a_process_notices_that_its_line_is_gone_with_its_head(home: SiteHome) -> None:
    agent, heads = ledger_of(home), heads_of(home)
    agent.append(kind="status")
    home.ledger.write_bytes(b"".join(lines_of(home)[:-1]))
    heads.own.write_bytes(b"".join(heads.own.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="line 7: it is missing or was rewritten"):
        agent.append(kind="status")


def test_nothing_is_appended_after_rewritten_lines(home: SiteHome) -> None:
    home.ledger.write_bytes(b"".join(rewritten(lines_of(home), LINES)))
    with pytest.raises(DataError, match=f"line {LINES}: it is missing or was rewritten"):
        ledger_of(home).append(kind="status")


def test_nothing_is_appended_without_the_key_that_signed_before(home: SiteHome) -> None:
    public = home.ledger_key.with_name("ledger.key.pub")
    kept = public.read_bytes()
    home.ledger_key.unlink()
    public.unlink()
    try:
        with pytest.raises(DataError, match="signed by another key"):
            ledger_of(home).append(kind="status")
        heads_of(home).own.unlink()
        with pytest.raises(DataError, match="it isn't signed"):
            ledger_of(home).append(kind="status")
        assert not home.ledger_key.exists()
    finally:
        public.write_bytes(kept)


KILLED = """
import os, signal, sys
from pathlib import Path
from fedai.heads import Heads
from fedai_site.home import open_home
from fedai_site.witness import ledger_of
Heads.keep = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
ledger_of(open_home(Path(sys.argv[1]))).append(kind="update", round=7)
"""


def test_a_process_that_is_killed_between_line_and_head_leaves_one_that_the_next_goes_on_from(
    home: SiteHome,
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(home.folder)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert vars(verify(home)) == {"lines": 7, "heads": 6, "witnessed": 6, "unheaded": 1}
    left = lines_of(home)
    ledger_of(home).append(kind="update", round=8)
    assert lines_of(home)[:7] == left, "the evidence is kept"
    assert vars(verify(home)) == {"lines": 8, "heads": 7, "witnessed": 7, "unheaded": 0}


def test_a_home_whose_lines_were_not_signed_goes_on_where_a_head_vouches_for_the_last(home: SiteHome) -> None:
    """As releases wrote it whose heads alone were signed."""
    unsigned = [json.loads(line) for line in lines_of(home)]
    home.ledger.write_bytes(
        b"".join(_line({k: v for k, v in one.items() if k != "signature"}) for one in unsigned)
    )
    assert broken_line(home) == 0
    ledger_of(home).append(kind="update", round=7)
    assert verify(home).lines == LINES + 1


def test_writers_wait_for_each_other_and_leave_one_chain(home: SiteHome) -> None:
    ledgers = [ledger_of(home) for _ in range(4)]
    threads = [threading.Thread(target=lambda one=one: [one.append(kind="status") for _ in range(5)])
               for one in ledgers]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vars(verify(home)) == {"lines": 26, "heads": 26, "witnessed": 26, "unheaded": 0}


def test_a_writer_that_holds_the_ledger_for_too_long_is_told(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.05)
    with home.ledger.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process holds the ledger; nothing was sent"):
            ledger_of(home).append(kind="status")


def test_lines_far_back_are_found_where_many_were_written_since(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_LINE", 1500)
    first, second = ledger_of(home), ledger_of(home)
    first.append(kind="status")
    for _ in range(20):
        second.append(kind="status")
    first.append(kind="status")
    assert verify(home).lines == LINES + 22


def test_a_home_of_an_earlier_release_makes_its_key_at_the_next_line(tmp_path: Path) -> None:
    home = create_home(tmp_path / "north", settings_for(tmp_path))
    home.ledger_key.unlink()
    home.ledger_key.with_name("ledger.key.pub").unlink()
    old = Ledger(home.ledger)
    for _ in range(3):
        old.append(kind="status")
    assert vars(verify(home)) == {"lines": 3, "heads": 0, "witnessed": 0, "unheaded": 0}
    ledger_of(home).append(kind="status")
    assert vars(verify(home)) == {"lines": 4, "heads": 1, "witnessed": 0, "unheaded": 0}
    home.ledger.write_bytes(b"".join(rewritten([line.replace(b'"kind"', b'"round": 0, "kind"')
                                                for line in lines_of(home)], 2)))  # fmt: skip
    assert broken_line(home) > 0


def test_nothing_is_recorded_as_sent_while_the_witness_is_away(tmp_path: Path) -> None:
    home = create_home(tmp_path / "north", settings_for(tmp_path, witness=str(tmp_path / "unmounted")))
    with pytest.raises(DataError, match=r"head can't be written.*nothing was sent"):
        ledger_of(home).append(kind="status")
    assert not (tmp_path / "unmounted").exists()


def test_a_witness_without_a_head_is_an_error(home: SiteHome, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no head"):
        verify(home, tmp_path)
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(ConfigError, match="no record of a run"):
        verify(home, tmp_path)


def test_the_witness_of_site_yaml_is_read_from_the_home(home: SiteHome) -> None:
    assert open_home(home.folder).settings.witness == home.settings.witness
    relative = home.settings.model_copy(update={"witness": Path("apart")})
    assert heads_of(SiteHome(home.folder, relative)).witness == home.folder / "apart/north-ledger-heads.jsonl"


HEX = {"hash": 64, "key": 64, "signature": 128}


@given(st.sampled_from([*HEX, "lines"]), st.data())
def test_a_head_of_which_one_part_differs_is_none(name: str, data: st.DataObject) -> None:
    head = dict(HEADS[0])
    odd = st.one_of(
        st.integers(-3, 9).filter(lambda n: n != head["lines"]),
        st.text("0123456789abcdef", min_size=HEX.get(name, 1), max_size=HEX.get(name, 1)),
        st.sampled_from(["", None, True, 1.0, [], {}, "g" * 64, "A" * 64]),
    )
    value = data.draw(odd.filter(lambda value: value != head[name] or type(value) is not type(head[name])))
    assert head_fault({**head, name: value})
    assert head_fault({**head, "more": 1})
    assert head_fault({key: value for key, value in head.items() if key != name})
    assert not head_fault(head)


def _heads() -> list[dict[str, Any]]:
    from tempfile import TemporaryDirectory

    from fedai.heads import make_head

    with TemporaryDirectory() as folder:
        write_key(Path(folder) / "key")
        key = read_key(Path(folder) / "key")
    return [make_head(lines, f"{number:064x}", key) for number, lines in enumerate((5, 5, 6, 4))]


HEADS = _heads()


def test_heads_that_contradict_each_other_are_told() -> None:
    first, other, later, earlier = HEADS
    assert contradiction(first, first) == contradiction(first, later) == ""
    assert "another hash" in contradiction(first, other)
    assert "there were 5 before" in contradiction(first, earlier)
    assert "another key" in contradiction(first, {**later, "key": "0" * 64})


def test_a_witness_that_is_away_is_no_good_sign(home: SiteHome) -> None:
    witness = heads_of(home).witness
    assert witness is not None
    aside = witness.with_name("aside")
    witness.rename(aside)
    try:
        with pytest.raises(DataError, match="the witness isn't there"):
            verify(home)
    finally:
        aside.rename(witness)
    assert verify(home).witnessed > 0
