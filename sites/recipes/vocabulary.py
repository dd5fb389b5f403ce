"""Builds vocabulary.txt, the words that cleaned text may hold, from the files in its folder.

It needs pydicom 3.0.2 (the Standard's code meanings) and Faker 40.63.0 (the names of
36 countries, which are taken out; not needed to run a site). Nothing is left to chance: the same versions
give the same file.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1] / "fedai_site/deidentify/vocabulary"
SCHEMES = ("DCM", "SCT", "RADLEX", "FMA")
SUBJECTS = re.compile(
    "Anatom|Region|Location|Site|Structure|Arter|Vein|Vessel|Vasc|View|Projection|Orientation|Laterality|Modality|"
    "ImagingProcedure|NM/PET|ContrastAgent|ImagingContrast|ContrastImaging|ProtocolAssertion|Acquisition|Plane|"
    "Phase|Segment|Nerve|Muscle|Bone|Organ|Tissue|Vertebra|Disc|Fiber|Tract|Position|LungFinding|Lesion|"
    "Reconstruction|FluoroMode|FilterMaterial|ImageMode|PulseSequence|Transducer|Respiration|Mammo|Breast|Colon|"
    "Joint|Fetal|Cranium|Valve|Heart|Ventric|Atri|Aort|CTTech|MRTech|PETUnit|SUV|Dose|SMLSize|Abdom|Pelvi|Brain|"
    "Spin|Sinus|Skull|Ear|Eye|Orbit|Abstract|Normality|Negative|PresentAbsent|YesNo|Quality"
)
OTHER_SUBJECTS = re.compile(
    "Animal|Breed|Drug|Medic|Anesth|Stain|Person|Role|Insur|Registry|Strain|Equation|Table|EEG|EMG|EOG|Waveform|"
    "Social|Family|Dental|Tooth|Small|Ophthal|Lens|Gene|Authority|Preclinical|Refract|Specimen|Audit|"
    "Radiopharm|Hemodyn|Wearable|Heartrate|Pedigree|MarkerName|Research"
)
COUNTRIES = (
    "en_US en_GB en_IN en_IE en_NZ en_PK de_DE de_AT de_CH fr_FR fr_CH es_ES es_AR es_CO it_IT pt_BR pt_PT "
    "nl_NL sv_SE no_NO da_DK fi_FI ko_KR ja_JP zh_CN zh_TW vi_VN tr_TR pl_PL cs_CZ hu_HU ro_RO hr_HR id_ID "
    "ne_NP ga_IE"
)


def folded(word: str) -> str:
    """Lower case without accents."""
    plain = unicodedata.normalize("NFD", word.casefold())
    return unicodedata.normalize("NFC", "".join(char for char in plain if not unicodedata.combining(char)))


def lines(name: str) -> Iterator[str]:
    text = (HERE / name).read_text(encoding="utf-8")
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def words(name: str) -> set[str]:
    return {
        unicodedata.normalize("NFC", word.casefold())
        for line in lines(name)
        if not line.startswith("=")
        for word in line.replace("-", " ").replace("_", " ").split()
    }


def meanings() -> set[str]:
    """The words of at least four letters of the meanings of codes about bodies and images."""
    from pydicom.sr._cid_dict import name_for_cid
    from pydicom.sr._concepts_dict import concepts

    groups = {
        cid for cid, name in name_for_cid.items() if SUBJECTS.search(name) and not OTHER_SUBJECTS.search(name)
    }
    found: set[str] = set()
    for scheme in SCHEMES:
        for codes in concepts[scheme].values():
            for meaning, cids in codes.values():
                if groups.intersection(cids):
                    found.update(re.findall(r"[^\W\d_]{4,}", meaning.casefold()))
    return found


def names() -> set[str]:
    """Given and family names of many countries, without accents."""
    found: set[str] = set()
    for country in COUNTRIES.split():
        provider: Any = importlib.import_module(f"faker.providers.person.{country}").Provider
        for attribute in dir(provider):
            if "name" in attribute and "format" not in attribute:
                found.update(folded(name) for name in spread(getattr(provider, attribute)))
    return found


def spread(value: object) -> Iterator[str]:
    """The words of a text, or of all texts in a collection."""
    if isinstance(value, str):
        yield from re.findall(r"[^\W\d_]+", value)
    elif isinstance(value, Iterable):
        for part in value:
            yield from spread(part)


def vocabulary() -> set[str]:
    """What is allowed: with its accents, and without them unless it would be a name."""
    kept, taken = words("unmistakable.txt"), {folded(word) for word in words("withheld.txt")}
    people = names()
    found = {folded(word) for word in kept}
    for word in words("technical.txt") | words("languages.txt") | meanings():
        plain = folded(word)
        if plain in taken:
            continue
        if plain not in people:
            found |= {plain, word}
        elif plain != word and not word.isascii() and re.search("[à-ÿ]", word):
            found.add(word)
    return found


def main() -> None:
    phrases = sorted({line[1:].strip() for line in lines("technical.txt") if line.startswith("=")})
    sources = ("technical.txt", "languages.txt", "withheld.txt", "unmistakable.txt")
    head = [
        "# Made by sites/recipes/vocabulary.py from the files beside it and from the",
        "# meanings of the Standard's codes in pydicom 3.0.2 (MIT License), without the names that",
        "# Faker 40.63.0 (MIT License) knows.",
        *(f"# sha256 of {name}: {sha256((HERE / name).read_bytes()).hexdigest()}" for name in sources),
    ]
    allowed = sorted(vocabulary())
    (HERE / "vocabulary.txt").write_text(
        "\n".join([*head, " ".join(allowed), *("= " + phrase for phrase in phrases), ""]), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
