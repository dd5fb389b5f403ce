"""Invented people: names, numbers and addresses put together from syllables that no ordinary text has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_FAMILY = {
    "nordic": (
        ("Bråvand", "Zylver", "Quarnö", "Fjädrik", "Tjällmo", "Skövling", "Vrindel", "Glömmer", "Krönnik"),
        ("skjöldun", "ändrelsk", "holtzäng", "ingqvorn", "umbråding", "ekzellström"),
    ),
    "latin": (
        ("Éxquivô", "Garçonz", "Beñalv", "Quéntr", "Zurràgh", "Müñozel", "Très-Vil", "Ybarrüt", "Oçambr"),
        ("rentéz", "ouvèlle", "ambarón", "ignáculo", "ûlquière", "orçaldo"),
    ),
}
_GIVEN = {
    "nordic": (
        ("Ottli", "Sigfr", "Åslaug", "Börj", "Thyrw", "Ingmör"),
        ("hilda-Vy", "endikt", "olveig", "artinne", "undväl"),
    ),
    "latin": (
        ("Zéphyr", "Inésqu", "Gwénaël", "Aurélw", "Ximéñ", "Théodr"),
        ("ilde-Óz", "antôn", "oralba", "equiel", "ísaura"),
    ),
}
_HANGUL_FAMILY = ("황보 Hwangbo", "남궁 Namgung", "선우 Seonwoo", "제갈 Jegalz", "독고 Dokgow", "사공 Sagong")
_HANGUL_SYLLABLES = (
    "가온 Gaon",
    "별하 Byeolha",
    "솔뫼 Solmoe",
    "다움 Daum",
    "한빛 Hanbit",
    "윤슬 Yunseul",
    "겨울 Gyeoul",
)
_HANGUL_ENDINGS = ("솔 sol", "담 dam", "결 gyeol", "빈 bin", "늘 neul", "찬 chan", "온 on")
_STREETS = (
    "Krummhörngränd",
    "Vesterzwölfstig",
    "Calle Qüimbarro",
    "Allée Zéphyrine",
    "Dalbitgil-ro",
    "Eunhasu-daero",
)


@dataclass(frozen=True)
class Person:
    """A patient. `name` is a DICOM person name, with an ideographic group where the language has one."""

    name: str
    family: str
    given: str
    native: str  # the name in its own script, "" if that is `name`
    patient_id: str
    other_id: str
    birth: str  # YYYYMMDD
    sex: str
    street: str
    phone: str
    relative: str

    @property
    def label(self) -> str:
        """The name as it is written on folders and into comments."""
        return f"{self.family} {self.given}"

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Every text that names the person; not dates as DICOM has them: eight digits turn up by chance."""
        texts = (self.name, self.label, self.family, self.given, self.native, self.native.replace("^", ""))
        rest = (self.patient_id, self.other_id, self.street, self.phone, self.relative, dotted(self.birth))
        return tuple(dict.fromkeys(text for text in texts + rest if len(text) >= 5))


def dotted(date: str) -> str:
    """YYYYMMDD as people write it in a comment: DD.MM.YYYY."""
    return f"{date[6:]}.{date[4:6]}.{date[:4]}"


def draw_people(rng: np.random.Generator, language: str, prefix: str, count: int) -> tuple[Person, ...]:
    """`count` people, no two with the same name, patient ID or telephone; IDs start with `prefix`.

    `language` is "nordic", "latin" or "korean".
    """
    pairs = list(_names(language))
    if count > len(pairs):
        raise ValueError(f"only {len(pairs)} different names can be made, not {count}")
    numbers = rng.choice(90_000, count, replace=False) + 10_000
    chosen = [pairs[index] for index in rng.permutation(len(pairs))[:count]]
    relatives = [pairs[index][1] for index in rng.permutation(len(pairs))[:count]]
    return tuple(
        _person(rng, pair, relative, prefix, int(number))
        for pair, relative, number in zip(chosen, relatives, numbers, strict=True)
    )


def draw_physicians(rng: np.random.Generator, language: str, count: int) -> tuple[str, ...]:
    """Person names of staff; their family names start with "Dr" as no patient's does."""
    pairs = list(_names(language))
    return tuple(f"Dr{pairs[i][0].lower()}^{pairs[i][1]}" for i in rng.permutation(len(pairs))[:count])


def _names(language: str) -> Iterator[tuple[str, str, str]]:
    """All (family, given, native) that a language offers."""
    if language == "korean":
        yield from _korean_names()
        return
    families = [start + end for start in _FAMILY[language][0] for end in _FAMILY[language][1]]
    givens = [start + end for start in _GIVEN[language][0] for end in _GIVEN[language][1]]
    for index in range(len(families) * len(givens)):
        yield families[index % len(families)], givens[index // len(families)], ""


def _korean_names() -> Iterator[tuple[str, str, str]]:
    for family in _HANGUL_FAMILY:
        for middle in _HANGUL_SYLLABLES:
            for ending in _HANGUL_ENDINGS:
                (hangul, roman), (a, b), (c, d) = family.split(), middle.split(), ending.split()
                yield roman, b + d, f"{hangul}^{a}{c}"


def _person(rng: Any, pair: tuple[str, str, str], relative: str, prefix: str, number: int) -> Person:
    family, given, native = pair
    roman = f"{family}^{given}"
    return Person(
        name=f"{roman}={native}" if native else roman,
        family=family,
        given=given,
        native=native,
        patient_id=f"{prefix}-{number}",
        other_id=f"{prefix}/old/{number * 7 % 100_000:05d}x",
        birth=f"{rng.integers(1932, 2004)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}",
        sex=str(rng.choice(["F", "M"])),
        street=f"{rng.choice(_STREETS)} {number % 389}/{number % 17}",
        phone=f"+99-555-{number}",
        relative=f"{relative} {family}",
    )
