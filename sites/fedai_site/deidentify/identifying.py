"""What is taken out of a text whatever its words are: marked parts, and a person's own words.

Marked is what follows a title or a label, ages, rooms, and numbers that identify.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

GONE = "\0"  # stands where something was taken out
SPACELESS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")

WORD, START = r"[^\W_][\w.'’-]{0,60}", r"(?<![^\W_])"
TITLES = (
    r"(?:Dr|dr|Dra|Mr|Ms)\.?|(?i:dr|mr|ms|md|m|sr|sra|sig)\.|"
    r"DR(?=\s(?:HAND|HEAD|FOOT|LUNG|BONE|HEART|BRAIN|NECK|BACK)S?(?![^\W_]))"  # digital radiography otherwise
    r"|(?i:prof|mrs|miss|herr|frau|mme|mlle|monsieur|madame|"
    r"señora?|signora?|dott|doctor|docteur|doktor|monsieur|professor|doña|don)\b\.?"
)
LABELS = (
    r"name|patient(?:in)?|pt|subject|physician|doctor|operator|tech(?:nologist|nician)?|referr\w*|ref|radiologist|"
    r"contact|attn|attending|nurse|surgeon|author|signed|dob|born|birth|sex|gender|age|address|addr|phone|tel|fax|"
    r"email|nom|nombre|nome|naam|arzt|médico|médecin|geb|geboren|"
    r"환자|이름|성명|성별|나이|주소|전화|의사|판독의|담당의|氏名|患者|医師|性別|住所"
)
ACTS = (
    "performed|read|reported|dictated|requested|scanned|referred|ordered|signed|approved|reviewed|verified|done|"
    "seen"
)
AGED = (
    r"(?:y/?o|y\.o\.|yrs?|years?|years?[ -]old|jahre|ans|años|anni|anos|jaar|months?[ -]old|mo|"
    r"세|살|개월|歳|才|岁|ヶ月)"
)
ROOMS = (
    "room|rm|apt|ward|bed|bay|suite|icu|ccu|station|floor|zimmer|bett|chambre|lit|habitaci[oó]n|cama|sala|kamer|stanza|"
    "letto|병실|병동|침대|호실|病室|病棟|室"
)
NUMBERED = (
    r"mrn|pid|patid|id|acc|accession|acc\.?no|no|nr|num|number|case|ssn|file|chart|record|order|req|visit|"
    r"study ?id|ref|reg|hosp|kh|khnr|dossier|등록번호|환자번호|번호|차트|주민\w*|番号|カルテ"
)
SEX = "[MFmf]|남|여|男|女"
MARKED = tuple(
    re.compile(pattern)
    for pattern in (
        r"[^\s<>()@]{1,64}@[^\s<>()]{1,255}",  # e-mail
        r"(?i)\b(?:https?|ftp|file)://\S+|\bwww\.\S+",
        r"(?i)(?<![\w-])[\w-]{1,63}\.(?:com|org|net|edu|gov|co\.\w\w|[a-z]{2}/)\S*",  # domains
        r"\\\\\S+|[A-Za-z]:\\\S+",  # paths
        r"\d{6}\s?[-–]\s?\d{7}|\d{3}-\d{2}-\d{4}",  # resident registration, social security
        r"(?:\d{1,20}\.){4,60}\d{1,20}|\d{1,3}(?:\.\d{1,3}){3}",  # UIDs, network addresses
        r"\+\d(?:[-–. ()/]{0,3}\d){6,}",  # telephone, before a part of it is read as a date
        rf"{START}(?:{TITLES})[\s.]*{WORD}(?:[ .]+{WORD})?",
        rf"(?i){START}(?:{LABELS})(?:[ _]?(?:name|id|no|nr))?[.]?\s*[:=＝：][^,;|\n]{{0,60}}",
        rf"(?i){START}(?:{ACTS})\s+by\s+{WORD}(?:[ ]+{WORD})?",
        rf"(?i){START}(?:age|aged|alter|âge|edad|età|idade|leeftijd|나이|만|年齢)\s*[:=]?\s*\d{{1,3}}\w?",
        rf"(?i){START}\d{{1,3}}\s?-?\s?{AGED}(?![^\W_])(?:[ -]?old)?(?:\s?/?\s?[mf](?![^\W_]))?",
        rf"(?i)(?<![\w.])\d{{1,3}}\s?-?\s?{AGED}\s?/?\s?(?:m|f|male|female|남|여)\w*",
        rf"(?<![\w.,])\d{{1,3}}\s?[-/ ]?\s?(?:{SEX})(?![^\W_])",
        rf"{START}(?:{SEX.upper()})\s?[-/ ]?\s?\d{{1,3}}(?![\w.])",
        rf"{START}\d{{3}}[YMWD](?![^\W_])",
        rf"(?i){START}\d{{2,3}}(?:[.,]\d)?\s?(?:kg|lbs?|pounds)(?![^\W_])|{START}\d{{3}}\s?cm(?![^\W_])",
        rf"(?i){START}(?:{ROOMS})\s*(?:no\.?|nr\.?)?[#:.]?\s*[a-z]?-?\d+[a-z]?(?![^\W_])",
        r"(?<!\d)\d{1,6}\s?(?:호실|호|병동|층|号室|號室|階|病棟)|#\s?\w+",
        rf"(?i){START}(?:{NUMBERED})[\s.#:=_-]*[a-z]{{0,4}}-?\d[\w-]*",
    )
)
LONG_NUMBER = re.compile(r"\+?\(?\d(?:[-–. ()]{0,2}\d){8,}")  # telephone and others, however grouped


def without_marked(text: str) -> str:
    """The text with `GONE` in place of each marked part."""
    for pattern in MARKED:
        text = pattern.sub(f" {GONE} ", text)
    return text


def without_long_numbers(text: str) -> str:
    """The text with `GONE` in place of nine digits and more, however they are grouped."""
    return LONG_NUMBER.sub(f" {GONE} ", text)


@dataclass(frozen=True, slots=True)
class Own:
    """What is known of persons: short words count if they stand alone, long ones wherever they stand."""

    alone: frozenset[str]
    anywhere: re.Pattern[str] | None


@lru_cache(maxsize=256)
def own_words(known: frozenset[str]) -> Own:
    """The words of known names and numbers, and each value joined to one word in both directions."""
    alone: set[str] = set()
    anywhere: set[str] = set()
    for value in known:
        plain = folded(value)
        parts = [part for part in re.split(r"[\W_]+", plain) if part]
        for word in {*parts, "".join(parts), "".join(reversed(parts))} - {""}:
            is_long = len(word) >= (2 if SPACELESS.search(word) else 4)
            (anywhere if is_long else alone).add(word)
    pattern = "|".join(re.escape(word) for word in sorted(anywhere, key=lambda word: (-len(word), word)))
    return Own(frozenset(alone), re.compile(pattern) if pattern else None)


def without_own(text: str, own: Own) -> str:
    """The text with a mark in place of each token that a person's own word touches."""
    if not own.alone and own.anywhere is None:
        return text
    plain = [folded(word) for word in re.findall(r"[^\W_]+", text)]
    hit = {number for number, word in enumerate(plain) if word in own.alone}
    if own.anywhere is not None:
        hit.update(touched(plain, own.anywhere))
    number = count()
    return re.sub(r"[^\W_]+", lambda match: f" {GONE} " if next(number) in hit else match.group(), text)


def touched(words: list[str], pattern: re.Pattern[str]) -> Iterator[int]:
    """The numbers of the words in which the pattern matches, if need be across several of them."""
    owner = [number for number, word in enumerate(words) for _ in word]
    joined, position = "".join(words), 0
    while match := pattern.search(joined, position):
        yield from range(owner[match.start()], owner[match.end() - 1] + 1)
        position = match.start() + 1


@lru_cache(maxsize=4096)
def folded(word: str) -> str:
    """Lower case, without accents and width, katakana as hiragana."""
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", word).casefold())
    kept = "".join(char for char in plain if not unicodedata.combining(char))
    kept = re.sub("[ァ-ヶ]", lambda match: chr(ord(match.group()) - 0x60), kept)
    return unicodedata.normalize("NFC", kept)
