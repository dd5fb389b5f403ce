"""The site's catalogue: one SQLite file. What training reads holds pseudonyms only.

The path that an object came from may carry a name, so it rests in `sources` alone; nothing but `add_data` and
the site's own commands read that table. Label keys are keyed hashes (see Pseudonyms.label_key), never the
archive's own numbers; readers of labels are too. Of a key the newest label counts, and what each reader said
is kept beside it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from fedai.errors import ConfigError
from fedai_site.databases import compact
from fedai_site.labels import CONSENSUS, Label, Reading
from fedai_site.traits import UNKNOWN, Traits

SCHEMA_VERSION = 6
TRAITS = (
    "body_part, manufacturer, slice_thickness_mm, spacing_mm, age_years, study_year, image, looks, sex, "
    "longer_side_px, intensity"
)
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS objects (
    id TEXT PRIMARY KEY,               -- SOP Instance UID of the clean object
    patient TEXT NOT NULL,             -- pseudonym
    study TEXT NOT NULL,               -- Study Instance UID of the clean object
    modality TEXT NOT NULL,
    path TEXT NOT NULL,                -- of the clean file, below the site's home
    sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,  -- of the clean file
    patient_key TEXT NOT NULL, accession_key TEXT NOT NULL, object_key TEXT NOT NULL,
    evidence TEXT NOT NULL,            -- of the cleaning, JSON: see deidentify/evidence.py
    body_part TEXT NOT NULL DEFAULT '', manufacturer TEXT NOT NULL DEFAULT '',      -- see traits.py
    slice_thickness_mm REAL, spacing_mm REAL, age_years INTEGER, study_year INTEGER,
    image TEXT NOT NULL DEFAULT '', looks TEXT NOT NULL DEFAULT '', sex TEXT NOT NULL DEFAULT '',
    longer_side_px INTEGER, intensity REAL
);
CREATE INDEX IF NOT EXISTS objects_by_patient_key ON objects (patient_key);
CREATE INDEX IF NOT EXISTS objects_by_accession_key ON objects (accession_key);
CREATE INDEX IF NOT EXISTS objects_by_object_key ON objects (object_key);
CREATE TABLE IF NOT EXISTS labels (      -- those that count
    kind TEXT, key TEXT, label TEXT NOT NULL,
    reader TEXT NOT NULL DEFAULT '', source TEXT NOT NULL DEFAULT '', PRIMARY KEY (kind, key)
);
CREATE TABLE IF NOT EXISTS readings (    -- the last one of each reader; keyed hashes of their names
    kind TEXT, key TEXT, reader TEXT, source TEXT NOT NULL, label TEXT NOT NULL,
    PRIMARY KEY (kind, key, reader)
);
CREATE TABLE IF NOT EXISTS splits (plan TEXT, patient TEXT, split TEXT NOT NULL, PRIMARY KEY (plan, patient));
CREATE TABLE IF NOT EXISTS withdrawn_images (  -- keyed hashes of pixels: nobody else's either
    image TEXT, patient TEXT, PRIMARY KEY (image, patient)
);
CREATE TABLE IF NOT EXISTS sources (   -- stays here: paths may name patients
    path BLOB PRIMARY KEY,
    state TEXT NOT NULL                -- WRITTEN, DUPLICATE, MASK, or the reason of the quarantine
);
"""
MIGRATIONS = {
    2: (
        "ALTER TABLE objects ADD COLUMN body_part TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE objects ADD COLUMN manufacturer TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE objects ADD COLUMN slice_thickness_mm REAL",
        "ALTER TABLE objects ADD COLUMN spacing_mm REAL",
        "ALTER TABLE objects ADD COLUMN age_years INTEGER",
        "ALTER TABLE objects ADD COLUMN study_year INTEGER",
        "ALTER TABLE objects ADD COLUMN image TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE objects ADD COLUMN looks TEXT NOT NULL DEFAULT ''",
    ),
    3: (
        "ALTER TABLE labels ADD COLUMN reader TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE labels ADD COLUMN source TEXT NOT NULL DEFAULT ''",
    ),
    4: ("ALTER TABLE objects ADD COLUMN sex TEXT NOT NULL DEFAULT ''",),
    5: (
        "ALTER TABLE objects ADD COLUMN longer_side_px INTEGER",
        "ALTER TABLE objects ADD COLUMN intensity REAL",
    ),
}
"""Schema -> what makes the next one of it: an earlier release's catalogue is brought up when it is opened."""
LABELLED = f"""
WITH doubtful AS (
    SELECT 'PatientID' AS kind, patient_key AS key FROM objects GROUP BY 2 HAVING count(DISTINCT patient) > 1
    UNION
    SELECT 'AccessionNumber', accession_key FROM objects GROUP BY 2 HAVING count(DISTINCT patient) > 1
), twice AS (
    SELECT image FROM objects WHERE image != '' GROUP BY 1 HAVING count(DISTINCT patient) > 1
), disputed AS (
    SELECT kind, key FROM readings GROUP BY 1, 2 HAVING count(DISTINCT label) > 1
), matched AS (
    SELECT o.*, l.kind AS kind, l.key AS key, l.label AS label, l.reader AS reader, l.source AS source
    FROM objects o
    LEFT JOIN labels s ON s.kind = 'SOPInstanceUID' AND s.key = o.object_key
    LEFT JOIN labels a ON a.kind = 'AccessionNumber' AND a.key = o.accession_key
    LEFT JOIN labels p ON p.kind = 'PatientID' AND p.key = o.patient_key
    LEFT JOIN labels l ON l.rowid = coalesce(s.rowid, a.rowid, p.rowid)
)
SELECT m.id, m.patient, m.modality, m.path, m.sha256, m.evidence, m.label, d.kind IS NOT NULL,
    m.image IN (SELECT image FROM twice UNION SELECT image FROM withdrawn_images),
    coalesce(m.reader, ''), coalesce(m.source, ''), q.kind IS NOT NULL AND m.source != '{CONSENSUS}', {TRAITS}
FROM matched m LEFT JOIN doubtful d ON d.kind = m.kind AND d.key = m.key
LEFT JOIN disputed q ON q.kind = m.kind AND q.key = m.key
ORDER BY m.patient, m.id
"""  # noqa: S608  of constants
TWICE = """
SELECT image, group_concat(DISTINCT patient) FROM objects WHERE image != ''
GROUP BY image HAVING count(DISTINCT patient) > 1
"""
COUNTED = """
SELECT EXISTS (SELECT 1 FROM labels WHERE kind = 'SOPInstanceUID' AND key = o.object_key)
    OR EXISTS (SELECT 1 FROM labels WHERE kind = 'AccessionNumber' AND key = o.accession_key)
    OR EXISTS (SELECT 1 FROM labels WHERE kind = 'PatientID' AND key = o.patient_key), count(*)
FROM objects o GROUP BY 1
"""
READ = """
SELECT r.kind, r.key, r.reader, r.source, r.label FROM readings r JOIN objects o ON o.id = ? AND r.key =
    CASE r.kind WHEN 'SOPInstanceUID' THEN o.object_key WHEN 'AccessionNumber' THEN o.accession_key
    ELSE o.patient_key END
ORDER BY r.kind DESC, r.reader
"""
WRITTEN, DUPLICATE, MASK = "WRITTEN", "DUPLICATE", "MASK"
KEY_COLUMNS = {"PatientID": "patient_key", "AccessionNumber": "accession_key", "SOPInstanceUID": "object_key"}


@dataclass(frozen=True)
class Record:
    """A clean object as catalogued: pseudonyms, the clean file's fingerprint, and the evidence of its
    cleaning.
    """

    id: str
    patient: str
    study: str
    modality: str
    path: str
    sha256: str
    bytes: int
    mtime_ns: int
    patient_key: str
    accession_key: str
    object_key: str
    evidence: str
    traits: Traits = UNKNOWN

    def row(self) -> tuple[Any, ...]:
        """As the table `objects` has it."""
        *own, traits = vars(self).values()
        return (*own, *vars(traits).values())


@dataclass(frozen=True)
class SourceFile:
    """A file of the archive's export and the state that it ended in."""

    path: Path
    state: str


@dataclass(frozen=True)
class LabelledObject:
    """What a cohort is selected from: an object with its label, None if it has none. `ambiguous`: several
    patients answer to the label's key; `elsewhere`: another patient has an image of the very same pixels;
    `disputed`: readers of the label's key disagree, and the label that counts is no consensus.
    """

    id: str
    patient: str
    modality: str
    path: str
    sha256: str
    evidence: str
    label: str | None
    ambiguous: int
    elsewhere: int
    traits: Traits = UNKNOWN
    reader: str = ""
    source: str = ""
    disputed: int = 0

    @property
    def has_evidence(self) -> bool:
        """Whether there is a record of its cleaning that speaks of the very bytes that were catalogued."""
        try:
            evidence = json.loads(self.evidence)
            return (
                bool(evidence["key_id"] and evidence["profile"]) and evidence["output_sha256"] == self.sha256
            )
        except (ValueError, TypeError, KeyError):
            return False


class Catalogue:
    """Opens the catalogue or makes it. Use as a context manager; each method is one transaction."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=30)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA secure_delete = ON")
        self._migrate()
        self._connection.executescript(SCHEMA)
        self._fix_fact("schema", str(SCHEMA_VERSION), "the catalogue was made by another release")

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _migrate(self) -> None:
        """Bring a catalogue of an earlier release up, all steps or none."""
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
                return
            found = connection.execute("SELECT value FROM facts WHERE name = 'schema'").fetchone()
            schema = int(found[0]) if found and found[0].isdecimal() else SCHEMA_VERSION
            while schema in MIGRATIONS:
                for statement in MIGRATIONS[schema]:
                    connection.execute(statement)
                schema += 1
                connection.execute("UPDATE facts SET value = ? WHERE name = 'schema'", (str(schema),))

    def use_key(self, key_id: str) -> None:
        """Tie the catalogue to one pseudonym key. Raises ConfigError if it was filled with another one."""
        self._fix_fact("key", key_id, "the catalogue was filled with another pseudonym key")

    def _fix_fact(self, name: str, value: str, otherwise: str) -> None:
        with self._connection as connection:
            connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
        found = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0]
        if found != value:
            raise ConfigError(
                otherwise, hint="restore what belongs together from the backup, or start a new home"
            )

    def record(self, object_id: str) -> Record | None:
        """The record of an object, or None."""
        row = self._connection.execute("SELECT * FROM objects WHERE id = ?", (object_id,)).fetchone()
        return None if row is None else _record(row)

    def replace(self, records: Iterable[Record], sources: Iterable[SourceFile]) -> None:
        """Put the whole truth about clean objects and source files in the place of what was known before."""
        marks = ", ".join("?" * (len(fields(Record)) - 1 + len(fields(Traits))))
        with self._connection as connection:
            connection.execute("DELETE FROM objects")
            connection.execute("DELETE FROM sources")
            rows = (record.row() for record in records)
            connection.executemany(f"INSERT INTO objects VALUES ({marks})", rows)  # noqa: S608
            files = ((os.fsencode(source.path), source.state) for source in sources)
            connection.executemany("INSERT INTO sources VALUES (?, ?)", files)

    def forget_labels(self, records: Iterable[Record]) -> None:
        """Delete the labels that these objects answer to, but those that other objects answer to as well."""
        with self._connection as connection:
            for record in records:
                for kind, column in KEY_COLUMNS.items():
                    key = getattr(record, column)
                    shared = f"SELECT 1 FROM objects WHERE {column} = ? AND patient != ? LIMIT 1"  # noqa: S608
                    if connection.execute(shared, (key, record.patient)).fetchone() is None:
                        connection.execute("DELETE FROM labels WHERE kind = ? AND key = ?", (kind, key))
                        connection.execute("DELETE FROM readings WHERE kind = ? AND key = ?", (kind, key))

    def withdraw_images(self, records: Iterable[Record]) -> None:
        """From now on an image with the pixels of one of these is used of nobody."""
        with self._connection as connection:
            rows = [(one.traits.image, one.patient) for one in records if one.traits.image]
            connection.executemany("INSERT OR IGNORE INTO withdrawn_images VALUES (?, ?)", rows)

    def of_patients(self, patients: Iterable[str]) -> list[Record]:
        """The clean objects of some patients."""
        query = "SELECT * FROM objects WHERE patient = ? ORDER BY id"
        rows = (row for patient in patients for row in self._connection.execute(query, (patient,)))
        return [_record(row) for row in rows]

    def compact(self) -> None:
        """Write the file anew, so that nothing of what was deleted is left in it."""
        compact(self._connection)

    def has_key(self, kind: str, key: str) -> bool:
        """Whether an object can be labelled by a key; kinds: PatientID, AccessionNumber, SOPInstanceUID."""
        query = f"SELECT 1 FROM objects WHERE {KEY_COLUMNS[kind]} = ? LIMIT 1"  # noqa: S608
        return self._connection.execute(query, (key,)).fetchone() is not None

    def set_labels(self, kind: str, labels: Iterable[tuple[str, ...]]) -> None:
        """Store (key, label, reader, source), the last two or one of them left out where it isn't told.

        A newer label takes the place of an older one for the same key, and of the same reader's; what other
        readers said stays beside it.
        """
        found = [Label(*label) for label in labels]
        with self._connection as connection:
            rows = [(kind, *label) for label in found]
            connection.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?)", rows)
            said = [Reading(kind, one.key, one.reader, one.source, one.label) for one in found if one.reader]
            connection.executemany("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?, ?)", said)

    def readings(self, object_id: str | None = None) -> list[Reading]:
        """What each reader said last of each key, or of the keys that an object answers to."""
        if object_id is None:
            rows = self._connection.execute("SELECT * FROM readings ORDER BY kind, key, reader")
        else:
            rows = self._connection.execute(READ, (object_id,))
        return [Reading(*row) for row in rows]

    def labelled(self) -> list[LabelledObject]:
        """All objects with their labels.

        The most specific label wins: of the object, of the accession, of the patient.

        An accession or patient key that more than one patient answers to makes the label `ambiguous`.
        """
        rows = self._connection.execute(LABELLED)
        told = ("reader", "source", "disputed")
        return [
            LabelledObject(*(*row[:9], Traits(*row[12:])), **dict(zip(told, row[9:12], strict=True)))
            for row in rows
        ]

    def alike(self) -> dict[str, str]:
        """Patients who share an image, pixel by pixel -> the name of their group: they may be one person."""
        groups: dict[str, str] = {}
        for _, joined in self._connection.execute(TWICE):
            patients = joined.split(",")
            known = {groups.get(patient, patient) for patient in patients}
            first = min(known)
            groups.update((patient, first) for patient in patients)
            groups.update((patient, first) for patient, group in groups.items() if group in known)
        return groups

    def count_labelled(self) -> dict[bool, int]:
        """How many objects have a label, and how many have none."""
        return {bool(has): number for has, number in self._connection.execute(COUNTED)}

    def states(self) -> Counter[str]:
        """How many source files ended in each state: WRITTEN, DUPLICATE, MASK, or a reason of the
        quarantine.
        """
        return Counter(
            dict(self._connection.execute("SELECT state, count(*) FROM sources GROUP BY state").fetchall())
        )

    def quarantined(self) -> list[tuple[Path, str]]:
        """(original path, reason) of what isn't used.

        For eyes inside the hospital only: paths may name patients.
        """
        rows = self._connection.execute(
            "SELECT path, state FROM sources WHERE state NOT IN (?, ?, ?) ORDER BY path",
            (WRITTEN, DUPLICATE, MASK),
        )
        return [(Path(os.fsdecode(path)), state) for path, state in rows]

    def splits(self, plan: str) -> dict[str, str]:
        """Patient -> split, as assigned so far under a plan."""
        return dict(
            self._connection.execute("SELECT patient, split FROM splits WHERE plan = ?", (plan,)).fetchall()
        )

    def plans(self, patient: str) -> dict[str, str]:
        """Plan -> the split that a patient is in under it."""
        query = "SELECT plan, split FROM splits WHERE patient = ? ORDER BY plan"
        return dict(self._connection.execute(query, (patient,)).fetchall())

    def forget_plans(self, plans: Iterable[str]) -> int:
        """Delete all assignments under some plans; gives how many those were."""
        with self._connection as connection:
            rows = [(plan,) for plan in plans]
            return connection.executemany("DELETE FROM splits WHERE plan = ?", rows).rowcount

    def assign(self, plan: str, splits: Mapping[str, str]) -> None:
        """Store new assignments; those made before stay."""
        with self._connection as connection:
            rows = [(plan, patient, split) for patient, split in splits.items()]
            connection.executemany("INSERT OR IGNORE INTO splits VALUES (?, ?, ?)", rows)


def _record(row: tuple[Any, ...]) -> Record:
    width = len(fields(Record)) - 1
    return Record(*(*row[:width], Traits(*row[width:])))
