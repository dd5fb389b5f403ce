"""Who may be used for what: consent records and withdrawals, in the site's catalogue.

A patient is known by pseudonym, or, before there is an image of it, by the keyed hash of its PatientID. What
changes here changes a small file in the home too, whose content the agent compares before every batch.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedai.datause import UNDECLARED, Question, forbidding, parse_scope
from fedai_site.catalogue import Catalogue

if TYPE_CHECKING:
    from fedai.study import Study

SCHEMA = """
CREATE TABLE IF NOT EXISTS consents (
    kind TEXT, key TEXT,               -- 'pseudonym' and it, or 'PatientID' and its keyed hash
    basis TEXT NOT NULL, scope TEXT NOT NULL, expires TEXT NOT NULL, reference TEXT NOT NULL,
    imported_at TEXT NOT NULL, PRIMARY KEY (kind, key)
);
CREATE TABLE IF NOT EXISTS withdrawals (
    patient TEXT, patient_key TEXT,    -- pseudonym and keyed hash of the PatientID; '' where it isn't known
    at TEXT NOT NULL, receipt TEXT NOT NULL,  -- '' until everything is deleted
    PRIMARY KEY (patient, patient_key)
);
"""
WITHDRAWN, NO_CONSENT, EXPIRED, SCOPE = "withdrawn", "no_consent", "consent_expired", "consent_scope"
PATIENT_ID, PSEUDONYM = "PatientID", "pseudonym"
MARK = "consent.mark"
SHORT_TIME = ("TS",)


@dataclass(frozen=True)
class Consent:
    """One record: for whom, on what basis, for which uses (DUO), until when (ISO date, '' for ever)."""

    kind: str
    key: str
    basis: str
    scope: str
    expires: str
    reference: str

    def objection(self, question: Question) -> str | None:
        """Why a case of this patient can't be used for what is asked: a wire reason; None if it can."""
        if self.expires and question.today > date.fromisoformat(self.expires):
            return EXPIRED
        forbids = set(forbidding(parse_scope(self.scope), question))
        if not forbids:
            return None
        return EXPIRED if forbids <= set(SHORT_TIME) else SCOPE


@dataclass(frozen=True)
class Withdrawal:
    """Who withdrew and when; `receipt` is the file that says what was deleted, '' while that's to be done."""

    patient: str
    patient_key: str
    at: str
    receipt: str


def rights_now(home: Path) -> str:
    """Changes with each import and withdrawal, and at midnight, when consents end. One small read."""
    try:
        mark = (home / MARK).read_bytes().hex()
    except FileNotFoundError:
        mark = ""
    return f"{mark}/{date.today().isoformat()}"


class Consents:
    """Opens the catalogue's tables of rights. A context manager; each method is one transaction."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with Catalogue(home / "catalogue.sqlite"):
            pass  # its tables are there from now on
        self._database = sqlite3.connect(home / "catalogue.sqlite", timeout=30)
        self._database.execute("PRAGMA secure_delete = ON")
        self._database.executescript(SCHEMA)

    def __enter__(self) -> Consents:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def put(self, consents: Iterable[Consent], renewed: Iterable[Withdrawal] = ()) -> None:
        """Store records, each in place of the one before; `renewed` are withdrawals that end by them."""
        now = _now()
        with self._database as database:
            rows = [(*vars(one).values(), now) for one in consents]
            database.executemany("INSERT OR REPLACE INTO consents VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            ended = [(one.patient, one.patient_key) for one in renewed]
            database.executemany("DELETE FROM withdrawals WHERE (patient, patient_key) = (?, ?)", ended)
            again = [(patient,) for patient, _ in ended]
            database.executemany("DELETE FROM withdrawn_images WHERE patient = ?", again)
        self._mark()

    def withdraw(self, patients: Iterable[tuple[str, str]]) -> None:
        """Note withdrawals as (patient, patient key); in force when this returns, deleted is nothing yet."""
        now = _now()
        with self._database as database:
            rows = [(*pair, now) for pair in patients]
            database.executemany("INSERT OR IGNORE INTO withdrawals VALUES (?, ?, ?, '')", rows)
            for patient, key, _ in rows:
                database.execute("DELETE FROM consents WHERE kind = ? AND key = ?", (PSEUDONYM, patient))
                database.execute("DELETE FROM consents WHERE kind = ? AND key = ?", (PATIENT_ID, key))
        self._mark()

    def close_with(self, withdrawal: Withdrawal, receipt: str) -> None:
        """Everything of the patient is deleted, and `receipt` says so."""
        with self._database as database:
            pair = (withdrawal.patient, withdrawal.patient_key)
            query = "UPDATE withdrawals SET receipt = ? WHERE (patient, patient_key) = (?, ?)"
            database.execute(query, (receipt, *pair))

    def _mark(self) -> None:
        partial = self.home / f"{MARK}.partial"
        partial.write_bytes(secrets.token_bytes(16))
        partial.replace(self.home / MARK)

    def consents(self) -> list[Consent]:
        """All records, in the order in which they came."""
        query = "SELECT kind, key, basis, scope, expires, reference FROM consents ORDER BY rowid"
        return [Consent(*row) for row in self._database.execute(query)]

    def withdrawals(self) -> list[Withdrawal]:
        """All that are in force, oldest first."""
        query = "SELECT patient, patient_key, at, receipt FROM withdrawals ORDER BY at, patient, patient_key"
        return [Withdrawal(*row) for row in self._database.execute(query)]

    def barred(self) -> frozenset[str]:
        """Pseudonyms and keyed PatientIDs whose originals are not taken in."""
        return frozenset(one.patient or one.patient_key for one in self.withdrawals())

    def patients(self) -> dict[str, str]:
        """Every patient that has a clean object -> the keyed hash of its PatientID."""
        return dict(self._database.execute("SELECT DISTINCT patient, patient_key FROM objects").fetchall())

    def images(self) -> dict[str, int]:
        """Clean objects by patient."""
        query = "SELECT patient, count(*) FROM objects GROUP BY patient"
        return dict(self._database.execute(query).fetchall())

    def records(self) -> dict[str, Consent]:
        """Patient -> the newest record about it. One by a PatientID of several patients is nobody's."""
        patients = self.patients()
        by_key = patients_by_key(patients)
        found: dict[str, Consent] = {}
        for consent in self.consents():
            answering = [consent.key] if consent.kind == PSEUDONYM else by_key.get(consent.key, [])
            if len(answering) == 1 and answering[0] in patients:
                found[answering[0]] = consent
        return found

    def objections(self, study: Study, *, required: bool, today: date | None = None) -> dict[str, str]:
        """Patient -> why none of its cases may be used for the study (a reason of the wire's exclusions)."""
        question = Question(study.data_use or UNDECLARED, study.name, study.sites, today or date.today())
        barred, records = self.barred(), self.records()
        found: dict[str, str] = {}
        for patient, key in self.patients().items():
            reason = (
                WITHDRAWN if barred & {patient, key} else _objection(records.get(patient), question, required)
            )
            if reason:
                found[patient] = reason
        return found


def _objection(record: Consent | None, question: Question, required: bool) -> str | None:
    if record is None:
        return NO_CONSENT if required else None
    return record.objection(question)


def patients_by_key(patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Keyed PatientID -> the patients that answer to it (several, where issuers differ)."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for patient, key in sorted(patients.items()):
        found[key].append(patient)
    return dict(found)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
