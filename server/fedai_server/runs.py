"""The run database: which runs there were and what happened in each, in an SQLite file beside the SuperLink's
own, or where `runs_database` in server.yaml says.

A run is a row and a list of facts (JSON) in the order in which they happened; `record` puts them together.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Connection,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import Column

from fedai.errors import ConfigError, FederationError
from fedai.study import Study
from fedai_server.databases import Unusable, transaction

State = Literal["planned", "waiting", "running", "degraded", "paused", "finished", "failed", "stopped"]
OVER: tuple[State, ...] = ("finished", "failed", "stopped")
Result = TypeVar("Result")
MOST_TRIES = 100
AWAY_S = 2.0  # between two looks for a database that can't be used
PAUSED = "by the coordinator; a question that is open is still answered"
log = logging.getLogger("fedai.server.runs")
TABLES = MetaData()
RUNS = Table(
    "runs",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("flower_id", Text, unique=True),
    *(Column(name, Text, nullable=False) for name in ("study", "study_sha256", "state")),
    *(Column(name, Text, nullable=False, default="") for name in ("reason", "started", "ended")),
)
FACTS = Table(
    "facts",
    TABLES,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run", Text, nullable=False),
    Column("seq", Integer, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("at", "kind", "fact")),
    Column("key", Text),
    UniqueConstraint("run", "seq", name="one_fact_at_a_place"),
    Index("a_fact_once", "key", unique=True),
)
"""As migrations/ leave them."""


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
    """Open it anywhere, by any process of the server; each call is one transaction.

    `waits`: for a database that can't be used now, however long that takes, instead of raising Unusable.
    `busy_s`: how long to wait for a turn (default: see databases.py).
    """

    place: Path | str
    waits: bool = False
    busy_s: float | None = None

    def plan(
        self,
        study: Study,
        note: Callable[[str], None] = lambda name: None,
        facts: Iterable[tuple[str, dict[str, Any]]] = (),
    ) -> str:
        """A new run of `study` under the next free name, such as cxr-nodule-3; `note` is told the name before
        the run is there, and again where another took that name meanwhile. `facts`: kinds and facts that the
        run has from its first moment on, since whoever finds it may begin it.
        """
        told = list(facts)

        def insert_run(connection: Connection) -> str:
            taken = set(connection.scalars(select(RUNS.c.name)))
            number = 1
            while f"{study.name}-{number}" in taken:
                number += 1
            name = f"{study.name}-{number}"
            note(name)
            row = {"name": name, "study": study.canonical(), "study_sha256": study.sha256}
            connection.execute(insert(RUNS).values(**row, state="planned", started=_now()))
            for seq, (kind, fact) in enumerate(told, 1):
                values = {"run": name, "seq": seq, "at": _now(), "kind": kind, "key": uuid4().hex}
                connection.execute(insert(FACTS).values(**values, fact=json.dumps(fact)))
            return name

        return self._do(insert_run, writes=True)

    def attach(self, name: str, flower_id: int) -> None:
        """Say which of the SuperLink's runs this is."""
        self._change(RUNS.c.name == name, flower_id=str(flower_id))

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

    def all(self, *, under_way: bool = False) -> list[Run]:
        """All runs, or those that aren't over, the oldest first."""
        columns = [RUNS.c[name] for name in Run.__dataclass_fields__]
        wanted = select(*columns).order_by(RUNS.c.started, RUNS.c.name)
        if under_way:
            wanted = wanted.where(RUNS.c.state.not_in(OVER))
        rows = self._do(lambda connection: connection.execute(wanted).all(), writes=False)
        return [Run(row[0], int(row[1] or 0), *row[2:]) for row in rows]

    def move(self, name: str, state: State, reason: str = "") -> bool:
        """Change a run's state; an ended run stays as it ended, and a paused one ends or is resumed (else
        False).
        """
        ended = _now() if state in OVER else ""
        final = OVER if state in OVER else (*OVER, "paused")
        where = (RUNS.c.name == name) & RUNS.c.state.not_in(final)
        return self._change(where, state=state, reason=reason, ended=ended)

    def pause(self, name: str) -> bool:
        """No further question; False where the run has ended or is paused already."""
        return self.move(name, "paused", PAUSED)

    def resume(self, name: str) -> bool:
        """Take a pause back; False where there was none."""
        return self._change(
            (RUNS.c.name == name) & (RUNS.c.state == "paused"), state="running", reason="resumed"
        )

    def _change(self, where: ColumnElement[bool], **values: str) -> bool:
        wanted = update(RUNS).where(where).values(**values)
        return self._do(lambda connection: connection.execute(wanted).rowcount == 1, writes=True)

    def add(self, name: str, kind: str, fact: dict[str, Any]) -> None:
        """Append one fact, once: a connection may be lost after a commit reached the database and before
        anybody heard of it, and then the fact is there at the next try.
        """
        key = uuid4().hex

        def append(connection: Connection) -> None:
            if connection.scalar(select(FACTS.c.id).where(FACTS.c.key == key)) is not None:
                return
            last = select(func.coalesce(func.max(FACTS.c.seq), 0)).where(FACTS.c.run == name)
            row = {"run": name, "seq": int(connection.scalar(last) or 0) + 1, "at": _now()}
            connection.execute(insert(FACTS).values(**row, kind=kind, fact=json.dumps(fact), key=key))

        self._do(append, writes=True)

    def facts(
        self, name: str, kind: str | None = None, after: int = 0
    ) -> list[tuple[int, str, dict[str, Any]]]:
        """(sequence number, kind, fact) of a run, in order."""
        wanted = select(FACTS.c.seq, FACTS.c.kind, FACTS.c.fact).where(
            FACTS.c.run == name, FACTS.c.seq > after
        )
        ordered = wanted.order_by(FACTS.c.seq)
        rows = self._do(lambda connection: connection.execute(ordered).all(), writes=False)
        return [(seq, found, json.loads(fact)) for seq, found, fact in rows if kind in (None, found)]

    def history(self, name: str) -> list[tuple[datetime, str, dict[str, Any]]]:
        """(when, kind, fact) of a run, in order."""
        wanted = select(FACTS.c.at, FACTS.c.kind, FACTS.c.fact).where(FACTS.c.run == name)
        ordered = wanted.order_by(FACTS.c.seq)
        rows = self._do(lambda connection: connection.execute(ordered).all(), writes=False)
        return [(datetime.fromisoformat(at), kind, json.loads(fact)) for at, kind, fact in rows]

    def states(self) -> dict[State, int]:
        """How many runs are in each state; all states are named."""
        wanted = select(RUNS.c.state, func.count()).group_by(RUNS.c.state)
        rows = self._do(lambda connection: connection.execute(wanted).all(), writes=False)
        return dict.fromkeys(get_args(State), 0) | {state: int(count) for state, count in rows}

    def check_writable(self) -> None:
        """Write a row to the disk and take it away again, in one transaction. Raises Unusable."""
        row = {"name": "", "study": "", "study_sha256": "", "state": "failed"}  # a run always has a name

        def write(connection: Connection) -> None:
            if connection.dialect.name == "postgresql" and self.busy_s is not None:
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(self.busy_s * 1000)}")
            connection.execute(insert(RUNS).values(**row))
            connection.execute(delete(RUNS).where(RUNS.c.name == ""))

        self._do(write, writes=True)

    def last_head(self, site: str) -> dict[str, Any]:
        """The newest head of a site's ledger, of whichever run; empty where none came yet."""
        heads = select(FACTS.c.fact).where(FACTS.c.kind == "ledger_head").order_by(FACTS.c.id.desc())

        def newest(connection: Connection) -> dict[str, Any]:
            told = (json.loads(fact) for fact in connection.scalars(heads))
            return next((dict(fact["head"]) for fact in told if fact["site"] == site), {})

        return self._do(newest, writes=False)

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
            "chosen": next((fact for _, kind, fact in facts if kind == "checkpoint_chosen"), {}),
            "references": next((f.get("references", {}) for _, k, f in facts if k == "begun"), {}),
            "without": sorted(s for _, kind, fact in facts if kind == "without" for s in fact["sites"]),
            "left_out": {fact["site"]: fact["why"] for _, kind, fact in facts if kind == "site_left_out"},
            "continued": [fact["after"] for _, kind, fact in facts if kind == "continued"],
            "models": list(dict.fromkeys(fact["model"] for _, kind, fact in facts if kind == "model_scored")),
            "ledger_heads": _by_site(facts, "head"),
            "ledger_contradictions": _by_site(facts, "contradiction"),
        }

    def _do(self, what: Callable[[Connection], Result], *, writes: bool) -> Result:
        """In one transaction. Once more where another writer took the name or the number meanwhile (SQLite
        lets one in at a time), or, where this one waits, for a database that can't be used now.
        """
        tries, told = 0, False
        while True:
            try:
                with transaction(self.place, writes=writes, busy_s=self.busy_s) as connection:
                    return what(connection)
            except IntegrityError:
                tries += 1
                if tries > MOST_TRIES:
                    raise
            except Unusable as error:
                if not self.waits:
                    raise
                if not told:
                    log.warning("%s; waiting for it", error)
                told = True
                time.sleep(AWAY_S)


def _by_site(facts: list[tuple[int, str, dict[str, Any]]], key: str) -> dict[str, list[Any]]:
    """What came with the heads of the sites' ledgers, in order; empty values are left out."""
    told: dict[str, list[Any]] = {}
    for _, kind, fact in facts:
        if kind == "ledger_head" and fact[key]:
            told.setdefault(fact["site"], []).append(fact[key])
    return told


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
