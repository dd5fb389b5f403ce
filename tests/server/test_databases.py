"""Opening the run database at this release's schema, from each schema there has been."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fedai_server import databases
from fedai_server.home import Settings
from fedai_server.runs import FACTS, RUNS, TABLES, RunDatabase
from postgresql import new_database
from sqlalchemy import create_engine, inspect, text
from studies import small_study

from fedai.errors import ConfigError
from fedai.yamlfile import FileProblems, parse

FIRST = """
CREATE TABLE runs (
  name TEXT PRIMARY KEY, flower_id TEXT UNIQUE, study TEXT NOT NULL, study_sha256 TEXT NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
  started TEXT NOT NULL, ended TEXT NOT NULL DEFAULT '');
CREATE TABLE facts (
  run TEXT NOT NULL REFERENCES runs(name), seq INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,
  fact TEXT NOT NULL, PRIMARY KEY (run, seq));
"""
"""What releases without numbered schemas made."""
STUDY = small_study()
BEGUN, ENDED = "2026-01-01T00:00:00.000+00:00", "2026-01-01T01:00:00.000+00:00"
LATER = "2026-01-02T00:00:00.000+00:00"
OLD_RUNS = [
    ("small-1", str(2**64 - 1), STUDY.canonical(), STUDY.sha256, "finished", "", BEGUN, ENDED),
    ("small-2", None, STUDY.canonical(), STUDY.sha256, "running", "round 1 of 3", LATER, ""),
]
HEADS = [
    ("small-2", 1, "2026-01-02T00:00:01.000+00:00", "b"),
    ("small-1", 2, "2026-01-01T00:00:02.000+00:00", "a"),
]
OLD_FACTS = [
    ("small-1", 1, "2026-01-01T00:00:01.000+00:00", "round_closed", json.dumps({"number": 1})),
    *(
        (run, seq, at, "ledger_head", json.dumps({"site": "north", "head": {"hash": head}}))
        for run, seq, at, head in HEADS
    ),
]


def steps() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(databases.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def fill(connection: Any, mark: str) -> None:
    for table, columns, rows in (
        ("runs", "name, flower_id, study, study_sha256, state, reason, started, ended", OLD_RUNS),
        ("facts", "run, seq, at, kind, fact", sorted(OLD_FACTS, key=lambda row: row[2])),
    ):
        for row in rows:
            marks = ", ".join([mark] * len(row))
            connection.exec_driver_sql(f"INSERT INTO {table} ({columns}) VALUES ({marks})", row)  # noqa: S608


def unnumbered(url: str) -> None:
    """A database as releases before numbered schemas left it; SQLite only, as they were."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.executescript(FIRST)
    engine = create_engine(url)
    with engine.begin() as opened:
        fill(opened, "?")
    engine.dispose()


def numbered(url: str, schema: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        config = steps()
        config.attributes["connection"] = connection
        command.upgrade(config, schema)
        fill(connection, "?" if engine.dialect.name == "sqlite" else "%s")
    engine.dispose()


@pytest.mark.parametrize(
    "kind", ["sqlite, unnumbered", "sqlite, 1", "sqlite, 2", "postgresql, 1", "postgresql, 2"]
)
def test_a_database_of_an_earlier_schema_keeps_all_its_runs(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dialect, schema = kind.split(", ")
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    if dialect == "postgresql":
        url = new_database(request.getfixturevalue("postgresql"))
    unnumbered(url) if schema == "unnumbered" else numbered(url, schema)
    runs = RunDatabase(url)
    assert [(run.name, run.flower_id, run.state, run.reason, run.ended) for run in runs.all()] == [
        ("small-1", 2**64 - 1, "finished", "", ENDED),
        ("small-2", 0, "running", "round 1 of 3", ""),
    ]
    assert runs.get("small-1").study == STUDY.canonical()
    kept = [(run, *fact) for run in ("small-1", "small-2") for fact in runs.facts(run)]
    assert sorted(kept) == sorted((run, seq, name, json.loads(fact)) for run, seq, _, name, fact in OLD_FACTS)
    assert runs.last_head("north") == {"hash": "b"}, "the newest by its time, not by its run's name"
    assert runs.plan(STUDY) == "small-3"
    runs.add("small-2", "round_closed", {"number": 1})
    assert [seq for seq, _, _ in runs.facts("small-2")] == [1, 2]


def test_the_tables_are_as_the_steps_leave_them(tmp_path: Path) -> None:
    place = tmp_path / "runs.sqlite"
    assert RunDatabase(place).all() == []
    engine = create_engine(f"sqlite:///{place}")
    found = inspect(engine)
    assert set(found.get_table_names()) == {*TABLES.tables, "alembic_version"}
    for table in (RUNS, FACTS):
        columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
        assert columns == {column.name: column.nullable for column in table.columns}
        indexes = {
            one["name"]: (one["column_names"], bool(one["unique"])) for one in found.get_indexes(table.name)
        }
        assert indexes == {one.name: (one.columns.keys(), one.unique) for one in table.indexes}
    engine.dispose()


def test_the_schema_of_this_release_is_the_last_step() -> None:
    assert ScriptDirectory.from_config(steps()).get_heads() == [databases.SCHEMA]


def test_a_database_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "runs.sqlite"
    RunDatabase(place).plan(STUDY)
    with sqlite3.connect(place) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '99'")
    before = place.read_bytes()
    with pytest.raises(ConfigError, match="schema 99, this release knows up to 3"):
        RunDatabase(place).all()
    assert place.read_bytes() == before


def test_a_step_that_fails_halfway_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    unnumbered(url)
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        before = list(connection.iterdump())

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("alembic.operations.Operations.drop_table", fail)
        with pytest.raises(MemoryError):
            RunDatabase(url).all()
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        assert list(connection.iterdump()) == before
    assert len(RunDatabase(url).all()) == 2


def test_a_place_that_can_not_be_used_is_named_without_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(ConfigError, match="can't be used") as caught:
        RunDatabase(tmp_path / "folder.sqlite").all()
    assert "folder.sqlite" in caught.value.where
    with pytest.raises(ConfigError) as caught:
        RunDatabase("postgresql+psycopg://me:hunter2@127.0.0.1:1/runs").all()
    assert "hunter2" not in f"{caught.value} {caught.value.where} {caught.value.hint}"


@pytest.mark.parametrize(
    ("url", "why"),
    [("runs.sqlite", "not a database's URL"), ("redis://x/y", "not a database's URL"),
     ("postgresql+psycopg://me:hunter2@db/runs", "no password")],
)  # fmt: skip
def test_a_url_that_is_none_or_holds_a_password_is_refused_in_server_yaml(url: str, why: str) -> None:
    text_ = f"public_host: localhost\nlisten_host: 127.0.0.1\nruns_database: {url}\n"
    with pytest.raises(FileProblems, match=why) as caught:
        parse(text_.encode(), Settings, "server.yaml")
    assert "hunter2" not in str(caught.value)


def test_postgresql_is_brought_to_this_schema_from_nothing(postgresql: str) -> None:
    url = new_database(postgresql)
    assert RunDatabase(url).all() == []
    engine = create_engine(url)
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == databases.SCHEMA
        assert connection.execute(text("SELECT count(*) FROM facts")).scalar() == 0
    engine.dispose()
