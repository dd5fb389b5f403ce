"""What consent allows and what a study does with data, in terms of GA4GH's Data Use Ontology.

Codes and ids are those of DUO's release 2021-02-23 (Lawson et al., Cell Genomics 2021). A scope is one
permission (NRES, GRU, HMB, DS, POA) and any number of modifiers, written `GRU; NCU; TS=2027-12-31` or with
ids, `DUO:0000042; DUO:0000046`. What a machine can't decide counts as forbidden unless the study says that it
accepts it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from fedai.yamlfile import Frozen

TERMS = {
    "NRES": ("DUO:0000004", "no restriction"),
    "GRU": ("DUO:0000042", "general research use"),
    "HMB": ("DUO:0000006", "health or medical or biomedical research"),
    "DS": ("DUO:0000007", "disease specific research"),
    "POA": ("DUO:0000011", "population origins or ancestry research only"),
    "RS": ("DUO:0000012", "research specific restrictions"),
    "NMDS": ("DUO:0000015", "no general methods research"),
    "GSO": ("DUO:0000016", "genetic studies only"),
    "NPUNCU": ("DUO:0000018", "not for profit, non commercial use only"),
    "PUB": ("DUO:0000019", "publication required"),
    "COL": ("DUO:0000020", "collaboration required"),
    "IRB": ("DUO:0000021", "ethics approval required"),
    "GS": ("DUO:0000022", "geographical restriction"),
    "MOR": ("DUO:0000024", "publication moratorium"),
    "TS": ("DUO:0000025", "time limit on use"),
    "US": ("DUO:0000026", "user specific restriction"),
    "PS": ("DUO:0000027", "project specific restriction"),
    "IS": ("DUO:0000028", "institution specific restriction"),
    "RTN": ("DUO:0000029", "return to database or resource"),
    "CC": ("DUO:0000043", "clinical care use"),
    "NPOA": ("DUO:0000044", "population origins or ancestry research prohibited"),
    "NPU": ("DUO:0000045", "not for profit organisation use only"),
    "NCU": ("DUO:0000046", "non-commercial use only"),
}
CODES = {identifier: code for code, (identifier, _) in TERMS.items()}
PERMISSIONS = ("NRES", "GRU", "HMB", "DS", "POA")
VALUES = {
    "DS": "disease terms, for example MONDO:0005070", "TS": "a last day, for example 2027-12-31",
    "MOR": "a last day, for example 2027-12-31", "IS": "institutions", "PS": "names of studies",
    "US": "users", "GS": "countries, for example KR", "RS": "a kind of research", "COL": "with whom",
}  # fmt: skip
"""Terms that say nothing without a value, and what the value is."""
DATES = ("TS", "MOR")
ACCEPTABLE = ("RS", "GSO", "PUB", "COL", "MOR", "RTN")
"""What no machine can check: allowed where the study accepts it in these words."""
VALUE = re.compile(r"[\w.:/ -]{1,80}")


@dataclass(frozen=True)
class Term:
    """One DUO term: its code and, for some, values."""

    code: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.code}={'|'.join(self.values)}" if self.values else self.code


Scope = tuple[Term, ...]


def suggest(word: str, known: Sequence[str]) -> str:
    """` (did you mean ...?)` or `: known are ...`, without repeating the word: it may be a patient's."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f": known are {', '.join(known)}"


def parse_scope(text: str) -> Scope:
    """Read a scope. Raises ValueError with every problem; it repeats nothing of the text."""
    words = [word.strip() for word in text.split(";") if word.strip()]
    terms, problems = [], []
    for number, word in enumerate(words, start=1):
        try:
            terms.append(parse_term(word))
        except ValueError as error:
            problems.append(f"term {number} {error}")
    problems += [] if problems else _together(terms)
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(terms)


def parse_term(word: str) -> Term:
    """Read one term. Raises ValueError; what it says goes behind `term 2`."""
    name, _, value = (part.strip() for part in word.partition("="))
    code = CODES.get(name.upper().replace("_", ":"), name.upper())
    if code not in TERMS:
        raise ValueError("is none of DUO's" + suggest(code, tuple(CODES if ":" in code else TERMS)))
    values = tuple(part.strip() for part in value.split("|") if part.strip())
    if code in VALUES and not values:
        raise ValueError(f"is {code}, which needs a value: {code}={VALUES[code]}")
    if values and code not in VALUES:
        raise ValueError(f"is {code}, which takes no value")
    if any(not VALUE.fullmatch(one) for one in values):
        raise ValueError(f"is {code}, whose value has odd characters or more than 80 of them")
    if code in DATES and (len(values) != 1 or not _is_date(values[0])):
        raise ValueError(f"is {code}, whose value is no date: write {code}=2027-12-31")
    return Term(code, values)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _together(terms: Sequence[Term]) -> list[str]:
    codes = [term.code for term in terms]
    permissions = [code for code in codes if code in PERMISSIONS]
    problems = []
    if len(permissions) != 1:
        found = " and ".join(permissions) if permissions else "no permission"
        problems.append(f"{found}; exactly one of {', '.join(PERMISSIONS)} is needed")
    twice = sorted({code for code in codes if codes.count(code) > 1} - set(PERMISSIONS))
    return problems + [f"{code} is there twice" for code in twice]


def _is_accepted(text: str) -> str:
    try:
        term = parse_term(text)
    except ValueError as error:
        raise ValueError(f"the term {error}") from None
    if term.code not in ACCEPTABLE:
        raise ValueError(f"{term.code} is nothing to accept; that can be: {', '.join(ACCEPTABLE)}")
    return str(term)


def _is_use(text: str) -> str:
    code = CODES.get(text.upper(), text.upper())
    if code not in ("GRU", "HMB", "DS", "POA", "CC"):
        raise ValueError(f"there is no such use{suggest(code, ('GRU', 'HMB', 'DS', 'POA', 'CC'))}")
    return code


Word = Annotated[str, Field(min_length=1, max_length=80)]


class DataUse(Frozen):
    """What a study does with data, as far as consent asks.

    `use`: the permission that it needs: GRU (any research), HMB (health), DS (the `diseases` alone), POA
    (ancestry) or CC (clinical care). `methods`: it develops methods as such. `institutions`: where its models
    are used; if none is named, the study's sites. `accepts`: obligations that it takes on.
    """

    use: Annotated[str, AfterValidator(_is_use)]
    diseases: tuple[Word, ...] = ()
    commercial: bool
    not_for_profit: bool
    methods: bool
    institutions: tuple[Word, ...] = ()
    users: tuple[Word, ...] = ()
    countries: tuple[Word, ...] = ()
    ethics_approvals: tuple[Word, ...] = ()
    accepts: tuple[Annotated[str, AfterValidator(_is_accepted)], ...] = ()

    @model_validator(mode="after")
    def _names_its_diseases(self) -> DataUse:
        if (self.use == "DS") != bool(self.diseases):
            raise ValueError("`use: DS` and `diseases` belong together: give both or neither")
        return self


UNDECLARED = DataUse(use="GRU", commercial=True, not_for_profit=False, methods=True)
"""A study that doesn't say what it does counts as one that does what needs the widest consent."""


@dataclass(frozen=True)
class Question:
    """What is asked of a scope: a study's use, its name and sites, and the day."""

    use: DataUse
    study: str
    sites: tuple[str, ...]
    today: date


def _permits(term: Term, asked: Question) -> bool:
    use = asked.use
    if term.code == "DS":
        return use.use == "DS" and set(use.diseases) <= set(term.values)
    allowed = {"NRES": {"GRU", "HMB", "DS", "POA", "CC"}, "GRU": {"GRU", "HMB", "DS", "POA"}}
    return use.use in allowed.get(term.code, {"HMB": {"HMB", "DS"}, "POA": {"POA"}}.get(term.code, set()))


def _within(named: Sequence[str], term: Term) -> bool:
    return bool(named) and set(named) <= set(term.values)


MODIFIERS: dict[str, Callable[[Term, Question], bool]] = {
    "NMDS": lambda term, asked: not asked.use.methods,
    "NPU": lambda term, asked: asked.use.not_for_profit,
    "NCU": lambda term, asked: not asked.use.commercial,
    "NPUNCU": lambda term, asked: asked.use.not_for_profit and not asked.use.commercial,
    "NPOA": lambda term, asked: asked.use.use not in ("POA", "GRU"),
    "IRB": lambda term, asked: bool(asked.use.ethics_approvals),
    "GS": lambda term, asked: _within(asked.use.countries, term),
    "US": lambda term, asked: _within(asked.use.users, term),
    "PS": lambda term, asked: _within((asked.study,), term),
    "IS": lambda term, asked: _within(asked.use.institutions or asked.sites, term),
    "TS": lambda term, asked: asked.today <= date.fromisoformat(term.values[0]),
    "CC": lambda term, asked: True,
}


def forbidding(scope: Scope, asked: Question) -> Iterator[str]:
    """The codes of the terms that don't allow what is asked; none where consent allows it."""
    codes = {term.code for term in scope}
    for term in scope:
        if term.code in PERMISSIONS:
            allowed = _permits(term, asked) or (asked.use.use == "CC" and "CC" in codes)
        elif term.code in ACCEPTABLE:
            allowed = str(term) in asked.use.accepts
        else:
            allowed = MODIFIERS[term.code](term, asked)
        if not allowed:
            yield term.code
