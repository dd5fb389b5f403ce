"""Show 5 of the ledger: whatever is done to it, chain, heads or witness tell, and name the line."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from fedai_site.home import SiteHome, create_home, open_home
from fedai_site.ledger import Ledger, _hash, _line
from fedai_site.witness import heads_of, ledger_of, verify
from homes import settings_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedai.errors import ConfigError, DataError
from fedai.heads import contradiction, head_fault
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
    """Write these lines and sign heads for them with the site's own key; the witness keeps its own."""
    heads = heads_of(home)
    home.ledger.write_bytes(b"".join(lines))
    heads.own.unlink()
    for line in lines:
        entry = json.loads(line)
        type(heads)(heads.own, heads.key).seal(entry["seq"], entry["hash"])


def test_each_line_is_sealed_by_a_signed_head_beside_it_and_at_the_witness(home: SiteHome) -> None:
    heads = heads_of(home)
    assert heads.witness
    assert heads.own.read_bytes() == heads.witness.read_bytes()
    told = [json.loads(line) for line in heads.own.read_bytes().splitlines()]
    assert [head["lines"] for head in told] == list(range(1, LINES + 1))
    assert [head["hash"] for head in told] == [line["hash"] for line in Ledger(home.ledger).lines()]
    assert {head_fault(head) for head in told} == {""}
    assert vars(verify(home)) == {"lines": LINES, "heads": LINES, "witnessed": LINES}


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


def test_lines_without_heads_are_named(home: SiteHome) -> None:
    ledger = Ledger(home.ledger)
    ledger.append(kind="update", round=7)
    assert broken_line(home) == 0, "a crash between line and head leaves one"
    ledger.append(kind="update", round=8)
    assert broken_line(home) == LINES + 1
    heads_of(home).own.unlink()
    assert broken_line(home) == 1


def test_a_home_of_an_earlier_release_makes_its_key_at_the_next_line(tmp_path: Path) -> None:
    home = create_home(tmp_path / "north", settings_for(tmp_path))
    home.ledger_key.unlink()
    home.ledger_key.with_name("ledger.key.pub").unlink()
    old = Ledger(home.ledger)
    for _ in range(3):
        old.append(kind="status")
    assert vars(verify(home)) == {"lines": 3, "heads": 0, "witnessed": 0}
    ledger_of(home).append(kind="status")
    assert vars(verify(home)) == {"lines": 4, "heads": 1, "witnessed": 0}
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
