"""What rules and guidelines ask of de-identified images, item by item, and what this reading can say to
it.

45 CFR 164.514(b)(2)(i) (HIPAA Safe Harbor) names 18 identifiers. The guideline of the Personal
Information Protection Commission of Korea on processing pseudonymous information (amended February 2024
for unstructured data) and that of the Ministry of Health and Welfare on health data (December 2022) ask
for a self-inspection. The items are in our own words; what a program can't judge is left to the reviewer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fedai_site.verification.findings import Finding, Findings, Severity

FORM = "form of an identifier"
BAD = (Severity.LEAK, Severity.VIOLATION)


@dataclass(frozen=True)
class Item:
    """One item: its number, what is asked, the answer of this reading, and 'clear', 'found', 'look' or
    'reviewer'.
    """

    number: str
    asks: str
    answer: str
    state: str


@dataclass(frozen=True)
class Asked:
    """An item before it is answered: the checks whose findings decide, and what the reader does about it."""

    number: str
    asks: str
    how: str
    checks: tuple[str, ...] = ()
    form: str = ""  # a word of what the detectors say


TEXT = ("known values", "table", "private", "unlisted", "claims", "file structure")
SAFE_HARBOR = (
    Asked("A", "Names", "table, value representation PN, search for the known names", TEXT),
    Asked("B", "Places smaller than a state", "table, free text, search for known addresses", TEXT),
    Asked(
        "C",
        "Dates but for the year, ages over 89",
        "every DA, DT, TM and AS",
        ("dates", "ages", "known values"),
    ),
    Asked("D", "Telephone numbers", "by form, and search for the known ones", TEXT, "telephone"),
    Asked("E", "Fax numbers", "by form, and search for the known ones", TEXT, "telephone"),
    Asked("F", "E-mail addresses", "by form, and search for the known ones", TEXT, "e-mail"),
    Asked(
        "G",
        "Social security numbers",
        "by form (US, Korea with check digit) and search",
        TEXT,
        "registration|social security",
    ),
    Asked("H", "Medical record numbers", "table, pseudonym in PatientID, search for the known ones", TEXT),
    Asked("I", "Health plan numbers", "table, search if they are in the list", TEXT),
    Asked("J", "Account numbers", "table, search if they are in the list", TEXT),
    Asked("K", "Certificate and licence numbers", "table, search if they are in the list", TEXT),
    Asked("L", "Vehicle identifiers", "unlisted text, search if they are in the list", TEXT),
    Asked("M", "Device identifiers and serial numbers", "table", ("table", "private", "unlisted", "claims")),
    Asked("N", "Web addresses", "representation UR, by form in text", TEXT, "web"),
    Asked("O", "IP addresses", "by form in text (private ranges)", TEXT, "network"),
    Asked(
        "P",
        "Biometric identifiers",
        "none is read; voice and waveform annotations go by the table",
        ("table",),
    ),
    Asked(
        "Q",
        "Full-face photographs and comparable images",
        "claims (0028,0301) and (0028,0302), pictures below",
        ("claims", "pixels", "graphics"),
    ),
    Asked(
        "R",
        "Any other unique number or code",
        "UIDs, accession numbers, private attributes; pseudonyms are keyed",
        (*TEXT, "references"),
    ),
)
KOREA = (
    Asked(
        "1", "The purpose (statistics, research, archiving in the public interest) is set out and lawful", ""
    ),
    Asked("2", "Only objects and attributes that the purpose needs are in the folder", ""),
    Asked(
        "3",
        "Direct identifiers are gone from headers, file structure, file names and evidence",
        "table, representations, search",
        (*TEXT, "evidence", FORM),
    ),
    Asked(
        "4",
        "Attributes that identify in combination (dates, ages, institutions, rare values) "
        "are treated as "
        "the options claimed say",
        "claims, dates, ages",
        ("claims", "dates", "ages"),
    ),
    Asked(
        "5",
        "Text burned into the pixels is gone, and the method's detection rate is known",
        "claim (0028,0301), decoding, pictures below",
        ("pixels", "claims", "graphics"),
    ),
    Asked(
        "6",
        "Faces that could be rebuilt from head volumes are gone, or the review board has decided otherwise",
        "claim (0028,0302)",
        ("claims",),
    ),
    Asked(
        "7", "Rare diseases, implants, anatomy or circumstances that single a person out were looked for", ""
    ),
    Asked(
        "8",
        "What was automatically treated was checked by persons on a sample; residual risk is recorded",
        "pictures below, chosen by a seed",
    ),
    Asked(
        "9",
        "It is known for each object what was done, by which tool and settings, and the bytes are those",
        "one line of evidence for each file, SHA-256",
        ("evidence",),
    ),
    Asked(
        "10",
        "Data of one person stay together, of different persons apart",
        "patients, studies, series, UIDs",
        ("references",),
    ),
    Asked(
        "11",
        "Additional information (keys, mapping tables) is kept apart, access to it limited and logged",
        "",
    ),
    Asked(
        "12",
        "The environment of use was considered: who uses the data, what else they hold, "
        "contracts, no way "
        "out",
        "",
    ),
    Asked(
        "13",
        "The adequacy review was made by persons independent of the use; for health data "
        "the review board "
        "has at least five members, two or more from outside",
        "",
    ),
    Asked("14", "Re-identification is forbidden; an accidental one ends the use and is reported", ""),
    Asked("15", "Retention, destruction, withdrawal (opting out) and re-inspection are arranged", ""),
)


def safe_harbor(findings: Findings) -> list[Item]:
    """The 18 identifiers with what was found."""
    return [_answered(asked, findings, _condition(asked.number, findings)) for asked in SAFE_HARBOR]


def korea(findings: Findings) -> list[Item]:
    """The self-inspection, as far as it can be answered from the bytes."""
    return [_answered(asked, findings, "") for asked in KOREA]


def _answered(asked: Asked, findings: Findings, condition: str) -> Item:
    if not asked.checks:
        answer = asked.how or "can't be told from the files"
        return Item(asked.number, asked.asks, answer, "reviewer")
    found = [*findings.of(*asked.checks), *_of_form(findings, asked.form)]
    bad = sum(f.severity in BAD for f in found)
    looks = sum(f.severity is Severity.LOOK for f in found)
    state = "found" if bad else "look" if looks or condition else "clear"
    result = f"{bad} findings" if bad else f"{looks} to look at" if looks else "nothing found"
    parts = (asked.how, result, condition)
    return Item(asked.number, asked.asks, "; ".join(part for part in parts if part), state)


def _of_form(findings: Findings, form: str) -> list[Finding]:
    """What the detectors found of one form."""
    return [f for f in findings.of(FORM) if form and re.search(form, f.message)]


def _condition(letter: str, findings: Findings) -> str:
    """What the claimed options mean for Safe Harbor."""
    tables = findings.facts.get("tables", {})
    codes, dates = tables.get("claims of (0012,0064)", {}), tables.get("dates (0028,0303)", {})
    if letter == "C" and {"MODIFIED", "UNMODIFIED"} & set(dates):
        return "dates were kept or shifted: not Safe Harbor, an expert has to determine (164.514(b)(1))"
    if letter == "M" and "113109" in codes:
        return "device identity was retained as claimed (113109): not Safe Harbor"
    if letter == "B" and "113112" in codes:
        return "institution identity was retained as claimed (113112): not Safe Harbor"
    if letter == "R" and "113110" in codes:
        return "UIDs were retained as claimed (113110): not Safe Harbor"
    known = findings.facts.get("known", {})
    if letter in "ADHGEFIJKL" and not known.get("given"):
        return "no list of known identifiers was given"
    return ""


def limits(findings: Findings) -> Iterator[str]:
    """What this reading can't know."""
    yield "It knows the written files only: a value is judged by itself, not against the input's."
    yield "Text in pixels and faces are judged by claims and by the pictures that a person looks at."
    yield "Names of fewer than four letters are found as whole words in text only."
    yield "In code strings a name that is spelled like a common term of the Standard can't be told from it."
    yield "In pixels, values are searched as bytes; base64 and hexadecimal digits aren't unpacked there."
    if not findings.facts.get("known", {}).get("given"):
        yield "Without a list of known identifiers (--known) only form and place of values were judged."
