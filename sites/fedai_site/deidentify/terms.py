"""Which short texts say nothing about anybody: the Standard's terms, makers, models, versions."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.resources import files

SMALL = re.compile(r"[0-9]{0,3}[A-Z]{0,2}[0-9]{0,3}|[0-9]{1,4}")  # T1, 2D, 13C, 1PS, 0001
KERNEL = re.compile(r"[A-Z]{1,2}[0-9]{1,3}[A-Z]?")  # B30S, FC13, BR40D
SIZE = re.compile(r"[0-9]{1,2}(CM|IN)X[0-9]{1,2}(CM|IN)")  # 35CMX43CM
SEQUENCE = re.compile(
    r"[A-Z]{1,6}[23]D[0-9]{0,2}[A-Z]{0,4}|T[12][A-Z]{2,4}|[0-9]{1,3}[A-Z]{1,2}|B[0-9]{1,4}T?"
)
VERSION = re.compile(r"[A-Z]{0,2}[0-9]{1,4}[A-Z]{0,2}[0-9]{0,3}[A-Z]?")
NUMBERED = re.compile(r"([A-Z]{3,})[0-9]{1,4}[A-Z]?")  # VIA5, SAT2
SPLIT = re.compile(r"[^0-9A-Z]+")
PLAIN = re.compile(r"[ -?A-Z\[\\\]_-}]*")  # printable ASCII without @ ^ ~
LONGEST_SMALL = 4
AGE = re.compile(r"[0-9]{2,3}[YMWD]")
MOST_DIGITS = 5  # in all words of a value that aren't terms: more may be a date, a telephone or an identifier
GROUPS = frozenset({
    "AFRICAN", "ALASKA", "ALASKAN", "AMERICAN", "AND", "ARAB", "ASIAN", "ASKED", "BLACK", "CAUCASIAN",
    "CENTRAL", "CHINESE", "DECLINED", "EAST", "EASTERN", "ETHNIC", "ETHNICITY", "EUROPEAN", "FILIPINO",
    "GROUP", "HAWAIIAN", "HISPANIC", "INDIAN", "INDIGENOUS", "ISLANDER", "JAPANESE", "KOREAN", "LATIN",
    "LATINO", "LATINA", "MIDDLE", "MIXED", "MORE", "MULTIPLE", "NATIVE", "NON", "NORTH", "NOT", "OF",
    "OR", "ORIGIN", "OTHER", "PACIFIC", "RACE", "RACES", "SOUTH", "SOUTHEAST", "THAN", "TWO", "UNKNOWN",
    "UNSPECIFIED", "VIETNAMESE", "WEST", "WHITE",
})  # fmt: skip
"""Words for groups of very many people (OMB SPD 15, and what hospitals write)."""
LONGEST = 64


@cache
def vocabulary() -> frozenset[str]:
    """All words of terms.txt, upper case."""
    text = files(__package__).joinpath("terms.txt").read_text(encoding="ascii")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


@lru_cache(maxsize=4096)
def is_term(value: str) -> bool:
    """Whether each word of each value is a term of the Standard or too short to name anybody."""
    if PLAIN.fullmatch(value) is None:
        return False
    others = [word for word in SPLIT.split(value.upper()) if not _is_listed(word)]
    digits = sum(character.isdigit() for word in others for character in word)
    return digits <= MOST_DIGITS and all(
        len(word) <= LONGEST_SMALL and SMALL.fullmatch(word) and not AGE.fullmatch(word) for word in others
    )


def _is_listed(word: str) -> bool:
    return word in vocabulary() or SIZE.fullmatch(word) is not None


def without_vocabulary(value: str) -> str:
    """The words that aren't the Standard's own."""
    return " ".join(word for word in SPLIT.split(value.upper()) if not _is_listed(word))


def is_group_word(value: str) -> bool:
    """Whether a text names nothing but a group of very many people."""
    words = SPLIT.split(value.upper().strip())
    return PLAIN.fullmatch(value) is not None and all(word in GROUPS for word in words if word)


@lru_cache(maxsize=4096)
def is_technical(value: str) -> bool:
    """Whether text about a device, a kernel or a pulse sequence holds nothing but its own kind of words."""
    if len(value) > LONGEST or PLAIN.fullmatch(value) is None:
        return False
    words = [word for word in SPLIT.split(value.upper()) if word]
    digits = sum(character.isdigit() for character in value)
    return digits <= 16 and all(_is_technical_word(word) for word in words)


def _is_technical_word(word: str) -> bool:
    if word in vocabulary():
        return True
    if AGE.fullmatch(word):
        return False
    if len(word) <= LONGEST_SMALL and SMALL.fullmatch(word):
        return True
    numbered = NUMBERED.fullmatch(word)
    if numbered is not None and numbered[1] in vocabulary():
        return True
    return any(pattern.fullmatch(word) for pattern in (KERNEL, SEQUENCE, VERSION))
