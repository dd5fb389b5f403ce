"""What one object says of itself and of others, and whether the objects of a folder fit together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fedai_site.verification.claims import KNOWN_CODES, Claims
from fedai_site.verification.findings import Finding, Severity
from fedai_site.verification.part10 import Part10
from fedai_site.verification.technical import DEFINED_TERMS

SOP_CLASS, SOP_INSTANCE, STUDY, SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
PATIENT, SEX, BIRTH_DATE, MODALITY = 0x00100020, 0x00100040, 0x00100030, 0x00080060
REFERENCED_INSTANCE = 0x00081155


@dataclass(frozen=True, slots=True)
class Identity:
    """One object of the folder: its path, size in bytes, hash, UIDs, patient, references and claims."""

    file: str
    size: int
    sha256: str
    sop_class: str
    sop: str
    study: str
    series: str
    patient: str
    sex: str
    birth_year: str
    modality: str
    references: frozenset[str]
    has_pixels: bool
    burned_in: str
    dates: str
    codes: frozenset[str]
    is_directory: bool = False


def identify(parts: Part10, claims: Claims, file: str, size: int, sha256: str) -> Identity:
    """The identity of an object."""
    references = {e.stripped().decode("latin-1") for e in parts.elements if e.tag == REFERENCED_INSTANCE}
    text = parts.text
    return Identity(
        file, size, sha256, text(SOP_CLASS), text(SOP_INSTANCE), text(STUDY), text(SERIES), text(PATIENT),
        text(SEX), text(BIRTH_DATE)[:4], text(MODALITY), frozenset(references - {""}), claims.has_pixels,
        claims.burned_in, claims.dates, claims.codes, claims.is_directory,
    )  # fmt: skip


def check_identities(objects: Sequence[Identity]) -> Iterator[Finding]:
    """Missing, repeated and contradictory identifiers."""
    for one in objects:
        yield from _missing(one)
    for group in _groups(objects, "sop").values():
        if len(group) > 1:
            for one in group:
                yield _look("another file has the same SOP Instance UID", one, "(0008,0018)")
    yield from _one_each(objects, "study", "patient", "(0020,000D)", "a study of more than one patient")
    yield from _one_each(objects, "series", "study", "(0020,000E)", "a series of more than one study")
    yield from _merged(objects)


def _violation(message: str, one: Identity, place: str) -> Finding:
    return Finding(Severity.VIOLATION, "references", message, one.file, place)


def _look(message: str, one: Identity, place: str) -> Finding:
    return Finding(Severity.LOOK, "references", message, one.file, place)


def _missing(one: Identity) -> Iterator[Finding]:
    if one.is_directory:
        return
    if not one.sop:
        yield _look("no SOP Instance UID", one, "(0008,0018)")
    if not one.patient:
        yield _violation("no pseudonym in PatientID", one, "(0010,0020)")


def _groups(objects: Iterable[Identity], name: str) -> dict[str, list[Identity]]:
    groups: dict[str, list[Identity]] = defaultdict(list)
    for one in objects:
        if value := getattr(one, name):
            groups[value].append(one)
    return groups


def _one_each(
    objects: Sequence[Identity], outer: str, inner: str, place: str, message: str
) -> Iterator[Finding]:
    """Objects with the same `outer` must have the same `inner`."""
    for group in _groups(objects, outer).values():
        if len({getattr(one, inner) for one in group}) > 1:
            yield from (_violation(message, one, place) for one in group)


def _merged(objects: Sequence[Identity]) -> Iterator[Finding]:
    """A patient of two sexes or birth years: perhaps two patients became one."""
    for group in _groups(objects, "patient").values():
        sexes = {one.sex for one in group if one.sex in ("M", "F")}
        years = {one.birth_year for one in group if one.birth_year}
        if len(sexes) > 1 or len(years) > 1:
            what = "one patient of two sexes" if len(sexes) > 1 else "one patient of two birth years"
            for one in group:
                yield Finding(
                    Severity.LOOK, "references", f"{what}: were two merged?", one.file, "(0010,0020)"
                )


def counts_of(objects: Sequence[Identity]) -> dict[str, int]:
    """Plain counts, among them references that resolve inside the folder and such that don't (distinct
    pairs).
    """
    present = {one.sop for one in objects}
    pairs = [(one.sop, uid) for one in objects for uid in one.references]
    resolved = sum(uid in present for _, uid in pairs)
    return {
        "objects": len(objects),
        "bytes": sum(one.size for one in objects),
        "patients": len({one.patient for one in objects}),
        "studies": len({one.study for one in objects}),
        "series": len({one.series for one in objects}),
        "references resolved in the folder": resolved,
        "references to objects outside": len(pairs) - resolved,
    }


def tables_of(objects: Sequence[Identity]) -> dict[str, dict[str, int]]:
    """Objects by modality, by claimed codes, by claim about text in pixels and about dates."""
    return {
        "modality": _counted(_term(one.modality, DEFINED_TERMS) for one in objects),
        "claims of (0012,0064)": _counted(_term(code, KNOWN_CODES) for one in objects for code in one.codes),
        "text in pixels (0028,0301)": _counted(
            _term(one.burned_in, DEFINED_TERMS) for one in objects if one.has_pixels
        ),
        "dates (0028,0303)": _counted(_term(one.dates, DEFINED_TERMS) for one in objects),
    }


def _term(value: str, terms: frozenset[str]) -> str:
    """A value that may be shown: one of the known terms."""
    return value if value in terms else "something else" if value else "not said"


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
