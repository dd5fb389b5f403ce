from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
from deaf_line import DeafLine
from fedai_server import databases
from fedai_server import runs as run_database
from fedai_server.leaving_out import facts_of
from fedai_server.runs import OVER, RunDatabase, State
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from postgresql import new_database
from sqlalchemy import Connection
from studies import small_study

from fedai.errors import ConfigError, FederationError

ENDS: tuple[State, ...] = OVER
UNDER_WAY: tuple[State, ...] = ("planned", "waiting", "running", "degraded")


@pytest.fixture(params=["sqlite", "postgresql"])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> RunDatabase:
    if request.param == "sqlite":
        return RunDatabase(tmp_path / "runs.sqlite")
    return RunDatabase(new_database(request.getfixturevalue("postgresql")))


def test_names_count_up_for_each_study(runs: RunDatabase) -> None:
    other = small_study(name="small-1")
    assert [runs.plan(small_study()) for _ in range(3)] == ["small-1", "small-2", "small-3"]
    assert [runs.plan(other) for _ in range(2)] == ["small-1-1", "small-1-2"]
    assert runs.plan(small_study()) == "small-4"
    assert [run.name for run in runs.all()][:3] == ["small-1", "small-2", "small-3"]


def test_a_run_is_there_with_its_options_or_not_at_all(runs: RunDatabase) -> None:
    """Whoever finds a planned run may begin it: without its options it would train where it shouldn't."""
    name = runs.plan(small_study(), facts=[*facts_of(["north"]), ("overview", {})])
    assert [(kind, fact) for _, kind, fact in runs.facts(name)] == [
        ("without", {"sites": ["north"]}), ("overview", {})
    ]  # fmt: skip
    runs.add(name, "begun", {})
    assert [kind for _, kind, _ in runs.facts(name)] == ["without", "overview", "begun"]
    with pytest.raises(TypeError):
        runs.plan(small_study(), facts=[("odd", {"it": object()})])
    assert [run.name for run in runs.all()] == [name]


def test_a_planned_run_holds_its_study(runs: RunDatabase) -> None:
    name = runs.plan(small_study())
    run = runs.get(name)
    assert (run.state, run.reason, run.ended, run.flower_id) == ("planned", "", "", 0)
    assert (run.study, run.study_sha256) == (small_study().canonical(), small_study().sha256)
    assert 0 <= run.seconds < 60


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("later", [*UNDER_WAY, *ENDS])
def test_a_run_that_ended_stays_as_it_ended(end: State, later: State, runs: RunDatabase) -> None:
    name = runs.plan(small_study())
    assert runs.move(name, end, "why")
    ended = runs.get(name)
    assert ended.ended
    assert not runs.move(name, later, "another reason")
    assert runs.get(name) == ended


def test_a_paused_run_is_moved_by_nothing_but_its_end_or_being_resumed(runs: RunDatabase) -> None:
    name = runs.plan(small_study())
    assert not runs.resume(name)
    assert runs.pause(name)
    assert not runs.pause(name)
    for state in UNDER_WAY:
        assert not runs.move(name, state)
    assert runs.get(name).state == "paused"
    assert runs.resume(name)
    assert runs.get(name).state == "running"
    assert runs.pause(name)
    assert runs.move(name, "stopped")
    assert not runs.resume(name)
    assert not runs.pause(name)


def test_the_last_round_is_the_last_that_closed(runs: RunDatabase) -> None:
    name = runs.plan(small_study())
    assert runs.last_round(name) == 0
    for number in (1, 2):
        runs.add(name, "round_closed", {"number": number})
    assert runs.last_round(name) == 2


def test_a_run_that_is_not_there_can_not_be_moved_or_read(runs: RunDatabase) -> None:
    assert not runs.move("gone-1", "running")
    with pytest.raises(ConfigError, match="there is no run 'gone-1'") as caught:
        runs.get("gone-1")
    assert "fedai run list" in caught.value.hint


def test_a_run_is_found_by_flowers_number_however_large(runs: RunDatabase) -> None:
    number = 2**64 - 1
    name = runs.plan(small_study())
    runs.attach(name, number)
    assert runs.attached_to(number, wait_s=0).name == name
    assert runs.get(name).flower_id == number
    with pytest.raises(FederationError, match="not one that `fedai run start` made"):
        runs.attached_to(7, wait_s=0)


def test_facts_are_told_in_order_and_from_where_one_left_off(runs: RunDatabase) -> None:
    name, other = runs.plan(small_study()), runs.plan(small_study())
    for number in range(4):
        runs.add(name, "round_closed" if number % 2 else "note", {"number": number})
        runs.add(other, "note", {})
    assert [seq for seq, _, _ in runs.facts(name)] == [1, 2, 3, 4]
    assert [fact["number"] for _, _, fact in runs.facts(name, "round_closed")] == [1, 3]
    assert [fact["number"] for _, _, fact in runs.facts(name, after=2)] == [2, 3]


def test_a_record_puts_all_facts_together(runs: RunDatabase) -> None:
    name = runs.plan(small_study())
    runs.add(name, "site_ready", {"site": "north", "cohort": {"flow": {}}, "versions": {"fedai": "1"}})
    runs.add(name, "site_refused", {"site": "east", "code": "DATA 0123456789ab"})
    runs.add(name, "round_closed", {"number": 1})
    runs.add(name, "model_scored", {"model": "federated", "answered": ["north"]})
    runs.add(name, "continued", {"after": 1})
    runs.add(name, "model_scored", {"model": "federated", "answered": ["north"]})
    runs.move(name, "finished")
    record = json.loads(json.dumps(runs.record(name)))
    assert (record["run"], record["state"], record["study_hash"]) == (name, "finished", small_study().sha256)
    assert record["study"] == json.loads(small_study().canonical())
    assert record["cohorts"] == {"north": {"flow": {}}}
    assert record["versions"] == {"north": {"fedai": "1"}}
    assert record["refused"] == {"east": "DATA 0123456789ab"}
    assert record["rounds"] == [{"number": 1}]
    assert record["models"] == ["federated"]
    assert record["continued"] == [1]


WORKER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from fedai_server.runs import RunDatabase
from studies import small_study
runs, study = RunDatabase({place!r}), small_study()
sys.stdin.readline()
for number in range(20):
    name = runs.plan(study)
    runs.add(name, "note", {{}})
    runs.add("shared", "note", {{"number": number}})
    runs.move(name, "running")
    runs.record(name)
    print(name)
"""


def test_processes_that_write_at_once_lose_nothing_and_share_no_name(runs: RunDatabase) -> None:
    code = WORKER.format(tests=str(Path(__file__).parents[1]), place=str(runs.place))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    names = [name for worker in workers for name in worker.communicate(timeout=60)[0].split()]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert sorted(names, key=lambda name: int(name[6:])) == [f"small-{n}" for n in range(1, 81)]
    assert {run.state for run in runs.all()} == {"running"}
    assert [seq for seq, _, _ in runs.facts("shared")] == list(range(1, 81))


def lose_the_word_of_a_commit(runs: RunDatabase, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """In the driver: the next commit is done, and then reported as lost."""
    dialect = databases._engine(f"sqlite:///{runs.place}", None).dialect
    commit: Callable[[Any], None] = dialect.do_commit

    def lose() -> None:
        def commit_and_break(connection: Any) -> None:
            monkeypatch.setattr(dialect, "do_commit", commit)
            commit(connection)
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(dialect, "do_commit", commit_and_break)

    return lose


def check_each_fact_is_there_once(runs: RunDatabase, lose: Callable[[], None]) -> None:
    name = runs.plan(small_study())
    for number in range(3):
        lose()
        runs.add(name, "note", {"number": number})
    lose()
    runs.move(name, "finished")
    assert [(seq, fact["number"]) for seq, _, fact in runs.facts(name)] == [(1, 0), (2, 1), (3, 2)]
    assert runs.get(name).state == "finished"


def test_a_fact_whose_commit_nobody_heard_of_is_not_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_database, "AWAY_S", 0.01)
    runs = RunDatabase(tmp_path / "runs.sqlite", waits=True)
    check_each_fact_is_there_once(runs, lose_the_word_of_a_commit(runs, monkeypatch))


def test_a_fact_is_written_once_though_the_line_to_postgresql_breaks_after_its_commit(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_database, "AWAY_S", 0.01)
    with TemporaryDirectory(prefix="line-") as folder:  # not pytest's: a socket's path has 107 bytes at most
        line = DeafLine(new_database(postgresql), Path(folder))
        check_each_fact_is_there_once(RunDatabase(line.url, waits=True), line.deafen)
        assert line.lost == 4
        line.close()


def test_a_fact_that_is_committed_while_it_is_written_again_is_there_once(
    runs: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, looks = runs.plan(small_study()), []
    key = uuid4()
    monkeypatch.setattr(run_database, "uuid4", lambda: key)
    look = Connection.scalar

    def look_before_it_is_there(connection: Connection, statement: Any, *more: Any, **most: Any) -> Any:
        looks.append(statement)
        return None if len(looks) == 3 else look(connection, statement, *more, **most)

    monkeypatch.setattr(Connection, "scalar", look_before_it_is_there)
    runs.add(name, "note", {})
    runs.add(name, "note", {})
    assert len(looks) == 5, "a look and a number, twice, and a look that finds it"
    assert [seq for seq, _, _ in runs.facts(name)] == [1]


class States(RuleBasedStateMachine):
    """Whatever is tried, a run has one end and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.runs = RunDatabase(Path(self.folder.name) / "runs.sqlite")
        self.expected: dict[str, State] = {}

    @rule()
    def plan(self) -> None:
        name = self.runs.plan(small_study())
        assert name not in self.expected
        self.expected[name] = "planned"

    @rule(state=st.sampled_from([*UNDER_WAY, *ENDS]), data=st.data())
    def move(self, state: State, data: st.DataObject) -> None:
        if not self.expected:
            return
        name = data.draw(st.sampled_from(sorted(self.expected)))
        moved = self.runs.move(name, state)
        assert moved == (self.expected[name] not in ENDS)
        if moved:
            self.expected[name] = state

    @invariant()
    def states_are_as_expected(self) -> None:
        assert {run.name: run.state for run in self.runs.all()} == self.expected

    def teardown(self) -> None:
        self.folder.cleanup()


TestStates = States.TestCase
TestStates.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)


def test_the_heads_of_the_sites_ledgers_are_on_record_and_the_newest_is_found(runs: RunDatabase) -> None:
    assert runs.last_head("north") == {}
    for name, site, lines, fault in (("small-1", "north", 3, ""), ("small-1", "east", 9, ""),
                                     ("small-2", "north", 2, "2 lines, there were 3 before")):  # fmt: skip
        if name not in {run.name for run in runs.all()}:
            runs.plan(small_study())
        runs.add(name, "ledger_head", {"site": site, "head": {"lines": lines}, "contradiction": fault})
    assert (runs.last_head("north"), runs.last_head("east")) == ({"lines": 2}, {"lines": 9})
    first, second = runs.record("small-1"), runs.record("small-2")
    assert first["ledger_heads"] == {"north": [{"lines": 3}], "east": [{"lines": 9}]}
    assert first["ledger_contradictions"] == {}
    assert second["ledger_contradictions"] == {"north": ["2 lines, there were 3 before"]}
