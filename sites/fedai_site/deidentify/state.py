"""What a run over a folder remembers, in its private folder: which file ended how, the evidence, decisions.

It stays with the hospital: paths of source files may name patients. The output folder holds nothing of it but
`evidence.jsonl`.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedai_site.databases import compact
from fedai_site.quarantine import Reason

SCHEMA = """
CREATE TABLE IF NOT EXISTS sources (
    path BLOB PRIMARY KEY, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    settings TEXT NOT NULL,            -- hash of profile, key and switches
    state TEXT NOT NULL,               -- WRITTEN, DUPLICATE, HELD, MASK, or the reason of the quarantine
    detail TEXT NOT NULL, input_sha256 TEXT NOT NULL,
    object TEXT NOT NULL,              -- path of the clean file below the output folder, '' if there is none
    picture TEXT NOT NULL              -- path of the reviewer's picture below the private folder
);
CREATE INDEX IF NOT EXISTS sources_by_object ON sources (object);
CREATE TABLE IF NOT EXISTS objects (
    path TEXT PRIMARY KEY, instance TEXT NOT NULL, patient TEXT NOT NULL,
    study TEXT NOT NULL, series TEXT NOT NULL,
    bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, evidence TEXT NOT NULL,
    facts TEXT NOT NULL                -- what whoever asked for the run wanted to remember, JSON
);
CREATE INDEX IF NOT EXISTS objects_by_instance ON objects (instance);
CREATE TABLE IF NOT EXISTS patients (
    patient TEXT PRIMARY KEY, number TEXT NOT NULL,  -- pseudonym, keyed hash of the PatientID alone
    has_issuer INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS patients_by_number ON patients (number);
CREATE TABLE IF NOT EXISTS looked_at (   -- by the run that is going on; empty else
    path BLOB PRIMARY KEY, is_done INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (fingerprint TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS decisions (input_sha256 TEXT PRIMARY KEY, decision TEXT NOT NULL);
"""
CONCEALED = re.compile(r"withdrawn:[0-9a-f]{32}")
WRITTEN, DUPLICATE, HELD, ALREADY = "WRITTEN", "DUPLICATE", "HELD", "ALREADY"
MASK = "MASK"  # outlines that were taken over; `detail` says of whom, by pseudonym


@dataclass(frozen=True)
class Source:
    """What became of one source file."""

    path: Path
    bytes: int
    mtime_ns: int
    settings: str
    state: str
    detail: str = ""
    input_sha256: str = ""
    object: str = ""
    picture: str = ""


@dataclass(frozen=True)
class Written:
    """A clean file: its path below the output folder, its pseudonymous names and its evidence as JSON."""

    path: str
    instance: str
    patient: str
    study: str
    series: str
    bytes: int
    mtime_ns: int
    evidence: str
    facts: str = "{}"


@dataclass(frozen=True)
class Patient:
    """A patient's pseudonym, the key of the PatientID alone, and whether an issuer was named."""

    pseudonym: str
    number: str
    has_issuer: bool


class State:
    """One SQLite file; a context manager. One process writes; a kill loses the last file at most."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        self._database = sqlite3.connect(folder / "state.sqlite", timeout=60)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute("PRAGMA secure_delete = ON")
        self._database.executescript(SCHEMA)

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def source(self, path: Path) -> Source | None:
        """What is known of a source file."""
        row = self._database.execute("SELECT * FROM sources WHERE path = ?", (os.fsencode(path),)).fetchone()
        return None if row is None else Source(path, *row[1:])

    def written(self, path: str) -> Written | None:
        """What is known of a clean file, by its path below the output folder."""
        row = self._database.execute("SELECT * FROM objects WHERE path = ?", (path,)).fetchone()
        return None if row is None else Written(*row)

    def note(self, source: Source, written: Written | None = None) -> None:
        """Remember a source file's end and the clean file that came of it."""
        values = (os.fsencode(source.path), *list(vars(source).values())[1:])
        with self._database as database:
            database.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            if written:
                row = tuple(vars(written).values())
                database.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def forget_object(self, path: str) -> None:
        """A clean file that is no longer there."""
        with self._database as database:
            database.execute("DELETE FROM objects WHERE path = ?", (path,))

    def sources_of(self, path: str) -> list[Source]:
        """The source files that a clean file came from."""
        rows = self._database.execute("SELECT * FROM sources WHERE object = ? ORDER BY path", (path,))
        return [Source(Path(os.fsdecode(row[0])), *row[1:]) for row in rows]

    def in_state(self, *states: str) -> list[Source]:
        """Source files in one of these states, by path."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT * FROM sources WHERE state IN ({marks}) ORDER BY path"  # noqa: S608
        rows = self._database.execute(query, states)
        return [Source(Path(os.fsdecode(row[0])), *row[1:]) for row in rows]

    def quarantined(self) -> list[Source]:
        """Source files that gave no clean file, by path."""
        query = "SELECT * FROM sources WHERE state NOT IN (?, ?, ?, ?) ORDER BY path"
        rows = self._database.execute(query, (WRITTEN, DUPLICATE, HELD, MASK))
        return [Source(Path(os.fsdecode(row[0])), *row[1:]) for row in rows]

    def note_settings(self, fingerprint: str, facts: Mapping[str, Any]) -> None:
        """Remember what a run's fingerprint stands for."""
        with self._database as database:
            row = (fingerprint, json.dumps(dict(facts), sort_keys=True, default=str))
            database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", row)

    def settings_in_use(self) -> list[dict[str, Any]]:
        """What the clean files were written under: the facts of each run that wrote any."""
        used = "SELECT settings FROM sources WHERE object IN (SELECT path FROM objects)"
        rows = self._database.execute(f"SELECT facts FROM settings WHERE fingerprint IN ({used})")  # noqa: S608
        return [json.loads(row[0]) for row in rows]

    def key_ids(self) -> set[str]:
        """The keys that clean files are of, by their evidence."""
        query = "SELECT DISTINCT json_extract(evidence, '$.key_id') FROM objects"
        return {row[0] for row in self._database.execute(query)}

    def has_objects(self) -> bool:
        """Whether any clean file is known."""
        return self._database.execute("SELECT 1 FROM objects LIMIT 1").fetchone() is not None

    def stale(self, key_id: str, settings: str) -> list[str]:
        """Paths of clean files that are of another key, or that only other settings made."""
        query = """SELECT path FROM objects WHERE json_extract(evidence, '$.key_id') != ? OR (
            path IN (SELECT object FROM sources)
            AND path NOT IN (SELECT object FROM sources WHERE settings = ?)) ORDER BY path"""
        return [row[0] for row in self._database.execute(query, (key_id, settings))]

    def note_patient(self, patient: Patient) -> None:
        """Remember under which number a patient came."""
        with self._database as database:
            database.execute(
                "INSERT OR REPLACE INTO patients VALUES (?, ?, ?)", tuple(vars(patient).values())
            )

    def split_patients(self) -> list[tuple[str, str]]:
        """Pseudonyms of one PatientID, (with an issuer, without one), of which there are clean files."""
        query = """SELECT one.patient, other.patient FROM patients one JOIN patients other USING (number)
            WHERE one.has_issuer AND NOT other.has_issuer AND number != ''
            AND one.patient IN (SELECT patient FROM objects)
            AND other.patient IN (SELECT patient FROM objects) ORDER BY 1, 2"""
        return self._database.execute(query).fetchall()

    def begin(self) -> None:
        """Nothing has been looked at by this run yet."""
        with self._database as database:
            database.execute("DELETE FROM looked_at")

    def look_at(self, path: Path, *, is_done: bool) -> bool:
        """Remember that this run has looked at a file, and whether there was nothing to do.

        False where it had looked at it already.
        """
        with self._database as database:
            row = (os.fsencode(path), is_done)
            return database.execute("INSERT OR IGNORE INTO looked_at VALUES (?, ?)", row).rowcount == 1

    def ends(self) -> Iterator[tuple[str, bool, int]]:
        """(state, there was nothing to do, how many) of what this run has looked at."""
        query = """SELECT coalesce(s.state, ''), l.is_done, count(*)
            FROM looked_at l LEFT JOIN sources s ON s.path = l.path GROUP BY 1, 2 ORDER BY 1, 2"""
        for state, is_done, number in self._database.execute(query):
            yield state, bool(is_done), number

    def written_now(self) -> Iterator[Written]:
        """The clean files that this run has written."""
        query = """SELECT o.* FROM looked_at l JOIN sources s ON s.path = l.path
            JOIN objects o ON o.path = s.object WHERE NOT l.is_done AND s.state = ?"""
        return (Written(*row) for row in self._database.execute(query, (WRITTEN,)))

    def forget_missing(self) -> None:
        """Which originals weren't there: where they come by themselves, they are told anew each time."""
        with self._database as database:
            database.execute("DELETE FROM sources WHERE state = ?", (str(Reason.MISSING),))

    def forget_sources(self) -> None:
        """As if no file had been looked at yet; decisions stay."""
        with self._database as database:
            database.execute("DELETE FROM sources")

    def counts(self) -> Counter[str]:
        """How many source files are in each state."""
        return Counter(dict(self._database.execute("SELECT state, count(*) FROM sources GROUP BY state")))

    def instances_of_several_patients(self) -> list[str]:
        """Paths of clean files whose SOP Instance UID more than one patient claims."""
        several = "SELECT instance FROM objects GROUP BY instance HAVING count(DISTINCT patient) > 1"
        query = f"SELECT path FROM objects WHERE instance IN ({several}) ORDER BY path"  # noqa: S608
        return [row[0] for row in self._database.execute(query)]

    def instance(self, instance: str) -> Written | None:
        """The clean file with a SOP Instance UID, where there is exactly one."""
        rows = self._database.execute("SELECT * FROM objects WHERE instance = ?", (instance,)).fetchall()
        return Written(*rows[0]) if len(rows) == 1 else None

    def in_series(self, series: str) -> list[Written]:
        """The clean files of a series, by path."""
        rows = self._database.execute("SELECT * FROM objects WHERE series = ? ORDER BY path", (series,))
        return [Written(*row) for row in rows]

    def objects(self) -> Iterator[Written]:
        """All clean files, by path."""
        return (Written(*row) for row in self._database.execute("SELECT * FROM objects ORDER BY path"))

    def sources(self) -> Iterator[Source]:
        """All source files, by path."""
        for row in self._database.execute("SELECT * FROM sources ORDER BY path"):
            yield Source(Path(os.fsdecode(row[0])), *row[1:])

    def evidence(self) -> Iterator[str]:
        """The evidence of all clean files, one JSON text each, by path."""
        for row in self._database.execute("SELECT evidence FROM objects ORDER BY path"):
            yield row[0]

    def conceal(self, state: str, name: Callable[[Path], str]) -> None:
        """Put a name that says nothing in place of the paths of source files in one state, hash and all."""
        for source in self.in_state(state):
            if CONCEALED.fullmatch(str(source.path)):
                continue
            with self._database as database:
                database.execute("DELETE FROM sources WHERE path = ?", (os.fsencode(source.path),))
                database.execute("DELETE FROM decisions WHERE input_sha256 = ?", (source.input_sha256,))
            self.note(Source(Path(f"withdrawn:{name(source.path)}"), 0, 0, "", state))

    def of_patients(self, patients: Collection[str]) -> list[Written]:
        """The clean files of some patients, by path."""
        return [written for written in self.objects() if written.patient in patients]

    def forget_patients(self, patients: Collection[str]) -> None:
        """Under which numbers some patients came."""
        with self._database as database:
            database.executemany("DELETE FROM patients WHERE patient = ?", [(one,) for one in patients])

    def compact(self) -> None:
        """Write the file anew, so that nothing of what was deleted is left in it."""
        compact(self._database)

    def decide(self, input_sha256: str, decision: Mapping[str, Any]) -> None:
        """Remember a person's decision about one file, known by its bytes' hash."""
        with self._database as database:
            row = (input_sha256, json.dumps(dict(decision), sort_keys=True))
            database.execute("INSERT OR REPLACE INTO decisions VALUES (?, ?)", row)

    def decisions(self) -> dict[str, dict[str, Any]]:
        """All decisions, by the hash of the file that they are about."""
        rows = self._database.execute("SELECT input_sha256, decision FROM decisions")
        return {key: json.loads(text) for key, text in rows}
