"""The run database: which runs there were, what happened in each, in an SQLite file beside the SuperLink's
own.

A run is a row and a list of facts (JSON) in the order in which they happened; `record` puts them together.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fedai.errors import ConfigError, FederationError
from fedai.study import Study

State = Literal["planned", "waiting", "running", "degraded", "paused", "finished", "failed", "stopped"]
OVER: tuple[State, ...] = ("finished", "failed", "stopped")
PAUSED = "by the coordinator; a question that is open is still answered"
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  name TEXT PRIMARY KEY, flower_id TEXT UNIQUE, study TEXT NOT NULL, study_sha256 TEXT NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
  started TEXT NOT NULL, ended TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS facts (
  run TEXT NOT NULL REFERENCES runs(name), seq INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,
  fact TEXT NOT NULL, PRIMARY KEY (run, seq));
"""


@dataclass(frozen=True)
class Run:
    """One row."""

    name: str
    flower_id: int
    study: str
    study_sha256: str
    state: State
    reason: str
    started: str
    ended: str

    @property
    def seconds(self) -> float:
        """Wall time so far, or in all."""
        end = datetime.fromisoformat(self.ended) if self.ended else datetime.now(UTC)
        return (end - datetime.fromisoformat(self.started)).total_seconds()


@dataclass(frozen=True)
class RunDatabase:
    """Open it anywhere, by any process of the server; each call is one transaction."""

    path: Path

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level="IMMEDIATE")
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(SCHEMA)
            with connection:
                yield connection
        finally:
            connection.close()

    def plan(self, study: Study) -> str:
        """A new run of `study` under the next free name, such as cxr-nodule-3."""
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            taken = {row[0] for row in connection.execute("SELECT name FROM runs")}
            number = 1
            while f"{study.name}-{number}" in taken:
                number += 1
            name = f"{study.name}-{number}"
            connection.execute(
                "INSERT INTO runs (name, study, study_sha256, state, started) VALUES (?, ?, ?, 'planned', ?)",
                (name, study.canonical(), study.sha256, _now()),
            )
            return name

    def attach(self, name: str, flower_id: int) -> None:
        """Say which of the SuperLink's runs this is."""
        with self._open() as connection:
            connection.execute("UPDATE runs SET flower_id = ? WHERE name = ?", (str(flower_id), name))

    def get(self, name: str) -> Run:
        """Raises ConfigError where there is no such run."""
        found = [run for run in self.all() if run.name == name]
        if not found:
            raise ConfigError(f"there is no run {name!r}", hint="see `fedai run list`")
        return found[0]

    def attached_to(self, flower_id: int, wait_s: float = 30.0) -> Run:
        """The run of a SuperLink's run; waits for `attach`. Raises FederationError after `wait_s` seconds."""
        until = time.monotonic() + wait_s
        while True:
            found = [run for run in self.all() if run.flower_id == flower_id]
            if found:
                return found[0]
            if time.monotonic() > until:
                raise FederationError(
                    f"the SuperLink's run {flower_id} is not one that `fedai run start` made"
                )
            time.sleep(0.1)

    def all(self) -> list[Run]:
        """All runs, the oldest first."""
        columns = "name, flower_id, study, study_sha256, state, reason, started, ended"
        with self._open() as connection:
            rows = connection.execute(f"SELECT {columns} FROM runs ORDER BY started, name").fetchall()  # noqa: S608
        return [Run(row[0], int(row[1] or 0), *row[2:]) for row in rows]

    def move(self, name: str, state: State, reason: str = "") -> bool:
        """Change a run's state; an ended run stays as it ended, and a paused one ends or is resumed (else
        False).
        """
        ended = _now() if state in OVER else ""
        final = OVER if state in OVER else (*OVER, "paused")
        return self._change(
            f"state = ?, reason = ?, ended = ? WHERE name = ? AND state NOT IN {final}",
            (state, reason, ended, name),
        )

    def pause(self, name: str) -> bool:
        """No further question; False where the run has ended or is paused already."""
        return self.move(name, "paused", PAUSED)

    def resume(self, name: str) -> bool:
        """Take a pause back; False where there was none."""
        return self._change(
            "state = 'running', reason = 'resumed' WHERE name = ? AND state = 'paused'", (name,)
        )

    def _change(self, what: str, values: tuple[str, ...]) -> bool:
        with self._open() as connection:
            return connection.execute(f"UPDATE runs SET {what}", values).rowcount == 1  # noqa: S608

    def add(self, name: str, kind: str, fact: dict[str, Any]) -> None:
        """Append one fact."""
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            last = connection.execute(
                "SELECT coalesce(max(seq), 0) FROM facts WHERE run = ?", (name,)
            ).fetchone()[0]
            connection.execute(
                "INSERT INTO facts VALUES (?, ?, ?, ?, ?)", (name, last + 1, _now(), kind, json.dumps(fact))
            )

    def facts(
        self, name: str, kind: str | None = None, after: int = 0
    ) -> list[tuple[int, str, dict[str, Any]]]:
        """(sequence number, kind, fact) of a run, in order."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT seq, kind, fact FROM facts WHERE run = ? AND seq > ? ORDER BY seq", (name, after)
            ).fetchall()
        return [(seq, found, json.loads(fact)) for seq, found, fact in rows if kind in (None, found)]

    def last_head(self, site: str) -> dict[str, Any]:
        """The newest head of a site's ledger, of whichever run; empty where none came yet."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT json_extract(fact, '$.head') FROM facts WHERE kind = 'ledger_head' "
                "AND json_extract(fact, '$.site') = ? ORDER BY rowid DESC LIMIT 1",
                (site,),
            ).fetchone()
        return dict(json.loads(row[0])) if row else {}

    def last_round(self, name: str) -> int:
        """The last round that closed; 0 before the first."""
        return max((int(fact["number"]) for _, _, fact in self.facts(name, "round_closed")), default=0)

    def record(self, name: str) -> dict[str, Any]:
        """Everything known of a run as one plain JSON object: what compare and report read."""
        run = self.get(name)
        facts = self.facts(name)
        cohorts = {fact["site"]: fact["cohort"] for _, kind, fact in facts if kind == "site_ready"}
        versions = {fact["site"]: fact["versions"] for _, kind, fact in facts if kind == "site_ready"}
        return {
            "run": run.name,
            "study_hash": run.study_sha256,
            "study": json.loads(run.study),
            "state": run.state,
            "reason": run.reason,
            "started": run.started,
            "seconds": round(run.seconds, 3),
            "versions": versions,
            "cohorts": cohorts,
            "refused": {fact["site"]: fact["code"] for _, kind, fact in facts if kind == "site_refused"},
            "rounds": [fact for _, kind, fact in facts if kind == "round_closed"],
            "references": next((f.get("references", {}) for _, k, f in facts if k == "begun"), {}),
            "left_out": {fact["site"]: fact["why"] for _, kind, fact in facts if kind == "site_left_out"},
            "continued": [fact["after"] for _, kind, fact in facts if kind == "continued"],
            "models": list(dict.fromkeys(fact["model"] for _, kind, fact in facts if kind == "model_scored")),
            "ledger_heads": _by_site(facts, "head"),
            "ledger_contradictions": _by_site(facts, "contradiction"),
        }


def _by_site(facts: list[tuple[int, str, dict[str, Any]]], key: str) -> dict[str, list[Any]]:
    """What came with the heads of the sites' ledgers, in order; empty values are left out."""
    told: dict[str, list[Any]] = {}
    for _, kind, fact in facts:
        if kind == "ledger_head" and fact[key]:
            told.setdefault(fact["site"], []).append(fact[key])
    return told


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
