"""From what the site engineer has in hand, a file or pseudonyms, to records and withdrawals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedai.errors import ConfigError
from fedai_site.consentfile import PATIENT_ID, PSEUDONYM, ConsentRow, read_consents, read_patients
from fedai_site.consents import Consent, Consents, Withdrawal, patients_by_key
from fedai_site.deidentify.pseudonyms import Pseudonyms, load_secret
from fedai_site.home import SiteHome


@dataclass(frozen=True)
class Imported:
    """What became of a file's lines. `unknown`: of patients without an image here, kept until one comes.
    `ambiguous`: of a PatientID that several patients answer to; such a line is nobody's. `renewed`:
    withdrawals that ended.
    """

    stored: int
    unknown: tuple[int, ...]
    ambiguous: tuple[int, ...]
    renewed: int


def import_consents(home: SiteHome, path: Path, *, renew: bool = False) -> Imported:
    """Store every line of a consent file, or none. `renew`: they may end withdrawals of the same patients.

    Raises ConfigError with every problem.
    """
    table, names = read_consents(path), Pseudonyms(load_secret(home.pseudonym_key))
    with Consents(home.folder) as consents:
        patients, withdrawals = consents.patients(), consents.withdrawals()
        keyed = [(row, _key(names, table.kind, row)) for row in table.rows]
        ended = [(row, one) for row, key in keyed if (one := _withdrawn(withdrawals, table.kind, key))]
        _refuse_withdrawn(path, [row for row, _ in ended if not (renew and row.basis == "consent")], renew)
        rows = [_consent(table.kind, key, row) for row, key in keyed]
        consents.put(rows, [one for _, one in ended])
    answering = {row.line: _answering(table.kind, key, patients) for row, key in keyed}
    unknown = tuple(line for line, found in answering.items() if not found)
    ambiguous = tuple(line for line, found in answering.items() if len(found) > 1)
    return Imported(len(keyed), unknown, ambiguous, len(ended))


def _key(names: Pseudonyms, kind: str, row: ConsentRow) -> str:
    return names.label_key(PATIENT_ID, row.key) if kind == PATIENT_ID else row.key


def _consent(kind: str, key: str, row: ConsentRow) -> Consent:
    return Consent(kind, key, row.basis, row.scope, row.expires, row.reference)


def _withdrawn(withdrawals: Sequence[Withdrawal], kind: str, key: str) -> Withdrawal | None:
    of = (one for one in withdrawals if key == (one.patient if kind == PSEUDONYM else one.patient_key))
    return next(of, None)


def _answering(kind: str, key: str, patients: Mapping[str, str]) -> list[str]:
    if kind == PSEUDONYM:
        return [key] if key in patients else []
    return patients_by_key(patients).get(key, [])


def _refuse_withdrawn(path: Path, rows: Sequence[ConsentRow], renew: bool) -> None:
    if rows:
        why = "only a new consent ends a withdrawal" if renew else "this patient withdrew"
        text = "\n".join(f"{path}:{row.line}: {why}" for row in rows)
        raise ConfigError(
            text, hint="with --renew a line of basis consent ends the withdrawal; nothing was imported"
        )


def find_patients(home: SiteHome, pseudonyms: Sequence[str], file: Path | None) -> list[tuple[str, str]]:
    """(pseudonym, keyed PatientID) of those who withdraw, '' for what isn't known here.

    Raises ConfigError, with every problem, for pseudonyms that this site doesn't know and for a PatientID
    that several patients answer to.
    """
    table = read_patients(file) if file else None
    names = Pseudonyms(load_secret(home.pseudonym_key))
    with Consents(home.folder) as consents:
        patients, withdrawals = consents.patients(), consents.withdrawals()
        recorded = {one.key for one in consents.consents() if one.kind == PSEUDONYM}
    known = {
        **dict.fromkeys(recorded, ""),
        **patients,
        **{one.patient: one.patient_key for one in withdrawals},
    }
    kind = table.kind if table else PSEUDONYM
    typed = enumerate(dict.fromkeys(pseudonyms), 1)  # what is no pseudonym of ours may be a PatientID
    wanted = [(name if name in known else f"argument {n}", PSEUDONYM, name) for n, name in typed]
    wanted += [(f"{file}:{row.line}", kind, _key(names, kind, row)) for row in table.rows] if table else []
    found: dict[tuple[str, str], None] = {}
    problems = []
    for where, of, key in wanted:
        pairs = _pairs(of, key, known)
        if len(pairs) == 1:
            found[pairs[0]] = None
        else:
            problems.append(f"{where}: {_doubt(pairs)}")
    if problems:
        raise ConfigError(
            "\n".join(problems),
            hint="pseudonyms are in `fedai site consent list HOME`, PatientIDs go into a file (--from); "
            "nothing was done",
        )
    return list(found)


def _pairs(kind: str, key: str, known: Mapping[str, str]) -> list[tuple[str, str]]:
    if kind == PSEUDONYM:
        return [(key, known[key])] if key and key in known else []
    found = [(patient, own) for patient, own in sorted(known.items()) if own == key]
    return found or [("", key)]


def _doubt(pairs: Sequence[tuple[str, str]]) -> str:
    if not pairs:
        return "this site knows no such pseudonym"
    return f"several patients answer to it, give pseudonyms: {', '.join(patient for patient, _ in pairs)}"
