"""Cleaning of descriptions: what is known to be useful and safe stays, everything else goes.

So does note 2 of PS3.15 E.3.5, Clean Descriptors Option, propose it.

Safe are the words of vocabulary/, short technical numbers, and dates as far as the profile lets them stand. A
patient's own words go even if they are in the vocabulary, and so does whatever surrounds a title, a label, an
age, a room or a number that identifies.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from itertools import pairwise

from fedai_site.deidentify.dates import Dates
from fedai_site.deidentify.identifying import (
    GONE,
    SPACELESS,
    Own,
    folded,
    own_words,
    without_long_numbers,
    without_marked,
    without_own,
)

DATED = "\ue000"  # stands where a day is kept, until the end
NO_DATES = Dates("remove")
LONGEST = 20_000  # characters; what is longer isn't a description

UNITS = (
    "mm|cm|ml|cc|l/s|ml/s|kv|kvp|kev|mev|ma|mas|ms|msec|s|sec|min|hz|khz|mhz|ghz|t|d|hu|gy|mgy|cgy|mci|mbq|deg|fps|fr|x|"
    "%|°|um|µm|μm|mmol|mg|mgi|iso|nex|th|st|nd|rd|phase|phases|slices|sl|ch|channel|shot|tesla|vol|dir|dirs"
)
KEYS = "te|tr|ti|fa|fov|st|sl|kv|kvp|kev|mev|ma|mas|w|l|ww|wl|wc|b|etl|nex|nsa|venc|bw|td|tau|rao|lao"
TECHNICAL = re.compile(
    rf"\d{{1,4}}(?:[.,]\d{{1,3}})?(?:{UNITS})"  # 5mm 1.5T 3D 120kV
    r"|\d{1,3}[.,]\d{1,3}"  # 0.75
    r"|[0-8]?\d"  # 5, 64, but no 90 and more: those may be ages
    r"|\d{1,4}(?:[x×*]\d{1,4}){1,2}(?:mm|cm)?"  # 512x512
    r"|\d{1,3}(?:[.,]\d{1,3})?(?:[x×*]\d{1,3}(?:[.,]\d{1,3})?){1,2}(?:mm|cm)?"  # 0.6x64
    r"|[ctls]\d{1,2}|th\d{1,2}"  # L4 T12 C7 T1 T2
    r"|[a-z]\d{1,2}"  # p2
    rf"|(?:{KEYS}|x)\d{{1,2}}|(?:b|te|tr|ti|w|l|ww|wl|st|venc)\d{{3,4}}|(?:kv|kvp|kev|mas|ma)\d{{2,3}}"
    r"|(?:b|br|bl|bv|bf|h|hr|hv|hf|hc|i|j|d|t|u|ur|uh|q|qr|sn|sa|sc|fc|fl|fr)\d{2}[a-z]{0,2}\d?"  # kernels
    r"|t[12]\*|r2\*|[+-]?c[+-]|[+-]c|\+/-|w/o|w/",
    re.IGNORECASE,
)
# Apart from the number Rao, Ma and Hu are names that a number may follow or precede by chance.
KEY = re.compile(rf"(?!rao|lao|Rao|Lao|ma|Ma|MA)(?:{KEYS}|{KEYS.upper()})")
UNIT = re.compile(rf"mA|(?!(?i:ma|hu|t|x|d|s|th|st|nd|rd)\Z)(?i:{UNITS})")
LETTERS = frozenset("lrctsxbwiv")  # left, right, contrast, spines
TOKEN = re.compile(
    r"(?<![^\W_])(?:[tTrR][12]\*|[+-]?[cC][+-](?![^\W_])|[+-][cC](?![^\W_])|\+/-|[wW]/[oO]?(?![^\W_]))"
    r"|\d+(?:[.,]\d+)?(?:[x×*]\d+(?:[.,]\d+)?){1,2}(?:mm|cm)?(?![^\W_])"
    r"|\d+(?:\.\d+)+[^\W\d_]*|\d{1,4},\d{1,3}(?![.,]?\d)[^\W\d_]*|\d+\s?[%°](?![^\W_])|[^\W_]+|\0"
)
PIECE = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+|[A-Z]")
SEPARATORS = re.compile(r"[^ \-_/.,:;()+*&=\[\]^\n]")
SIGNS = " -_/.,:;=&*^\n"
CARETS = re.compile(r"(?:(?<![^\s^])|(?=\^))[^\s^]{0,64}(?:\^[^\s^]{0,64})+")
MATRICES = frozenset(map(str, (128, 192, 224, 256, 288, 320, 384, 448, 512, 640, 768, 1024)))
LONG_KEYS = frozenset({"te", "tr", "ti", "b", "venc"})  # of up to four digits; all other keys of up to three


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words in lower case, with accents, and without unless that is a name; phrases as tuples of words."""

    words: frozenset[str]
    phrases: frozenset[tuple[str, ...]]
    longest_phrase: int


@cache
def load_vocabulary() -> Vocabulary:
    """The vocabulary as shipped."""
    text = files(__package__).joinpath("vocabulary", "vocabulary.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    phrases = frozenset(tuple(line[1:].split()) for line in lines if line.startswith("="))
    words = frozenset(word for line in lines if not line.startswith("=") for word in line.split())
    return Vocabulary(words, phrases, max(map(len, phrases)))


@lru_cache(maxsize=256)  # a series says the same in each of its objects
def clean_text(text: str, known: frozenset[str], dates: Dates) -> str:
    r"""What may stay of a text: known words of radiology, technical numbers, dates as `dates` lets them.

    `known` are the patient's and other persons' names and numbers (whole values or their words, any case and
    form): they go wherever they stand, in any order, case, width and punctuation, joined or apart. The values
    of a multi-valued text ('\' between them) are cleaned one by one. The result is NFKC-normalised and may be
    empty; it isn't ASCII only if the text wasn't.
    """
    if len(text) > LONGEST:
        return ""
    own = own_words(known)
    return "\\".join(_clean(part, own, dates) for part in text.split("\\"))


def _clean(text: str, own: Own, dates: Dates) -> str:
    text = unicodedata.normalize("NFKC", text.replace(GONE, " ").replace(DATED, " "))
    if dates.mode == "keep":
        text = without_own(text, own)
    tokens: list[Token] = []
    days: list[str] = []
    for piece, is_date in dates.parts(without_marked(text)):
        if is_date:
            days += [piece] if piece else []
            tokens.append(Token("", DATED, bool(piece)))
        else:
            rest = CARETS.sub(_caret, without_long_numbers(piece))
            tokens += _tokens(without_own(rest, own))
    return _with_days(_joined(tokens, text), days)


def _with_days(text: str, days: list[str]) -> str:
    """The text with the days in the places kept for them; without any if one of the places was lost."""
    if text.count(DATED) != len(days):
        return _tidy(text.replace(DATED, " "))
    for day in days:
        text = text.replace(DATED, day, 1)
    return text


def _caret(match: re.Match[str]) -> str:
    """What is joined as a person's name is (A^B) stays only if every word of it may."""
    words = re.findall(r"[^\W_]+", match.group())
    return match.group() if all(_is_safe(word) for word in words) else f" {GONE} "


@dataclass(frozen=True, slots=True)
class Token:
    """A word or number with what stood before it; not kept if it has to go."""

    before: str
    text: str
    kept: bool


def _tokens(piece: str) -> Iterator[Token]:
    matches = list(TOKEN.finditer(piece))
    words = [match.group() for match in matches]
    gaps = [piece[left.end() : right.start()] for left, right in pairwise(matches)]
    together = _in_phrases(words, gaps) | set(_measured(words))
    position = 0
    for number, match in enumerate(matches):
        yield Token(
            piece[position : match.start()], words[number], number in together or _is_safe(words[number])
        )
        position = match.end()
    yield Token(piece[position:], "", True)


def _in_phrases(words: list[str], gaps: list[str]) -> set[int]:
    """The numbers of the words that are part of a phrase, with one space or _ between them."""
    vocabulary = load_vocabulary()
    plain = [folded(word) for word in words]
    found: set[int] = set()
    for start in range(len(plain)):
        for length in range(2, vocabulary.longest_phrase + 1):
            is_near = all(gap in (" ", "_") for gap in gaps[start : start + length - 1])
            if is_near and tuple(plain[start : start + length]) in vocabulary.phrases:
                found.update(range(start, start + length))
    return found


def _measured(words: list[str]) -> Iterator[int]:
    """The numbers of the words that are a number with its key before it or its unit after it (TE 9)."""
    in_list = False  # of b values: b0, 500, 1000
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        if not re.fullmatch(r"\d{1,4}(?:[.,]\d{1,3})?", word):
            in_list = re.fullmatch(r"[bB]\d{0,4}", word) is not None
            continue
        after = words[number + 1] if number + 1 < len(words) else ""
        if KEY.fullmatch(before) and (len(word) <= 3 or before.lower() in LONG_KEYS):
            yield from (number - 1, number)
        elif UNIT.fullmatch(after) and not (after.lower() == "cm" and len(word) > 2):
            yield from (number, number + 1)
        elif (in_list and int(float(word.replace(",", "."))) % 50 == 0) or word in MATRICES:
            yield number


@lru_cache(maxsize=8192)
def _is_safe(token: str) -> bool:
    if token == GONE:
        return False
    if _is_word(token) or TECHNICAL.fullmatch(token):
        return True
    if SPACELESS.search(token):
        return all(_is_word(part) or _is_row(part) or TECHNICAL.fullmatch(part) for part in _scripts(token))
    return _is_compound(token)


def _is_word(word: str) -> bool:
    """Whether the word is one of the vocabulary, accents and all; kana of either kind are the same."""
    words, plain = load_vocabulary().words, word.casefold()
    return (
        plain in words or plain in LETTERS or (SPACELESS.search(word) is not None and folded(word) in words)
    )


def _scripts(token: str) -> list[str]:
    """Runs of Hangul, kana and kanji, and of everything else."""
    return re.findall(
        r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+|[^\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+", token
    )


def _is_row(run: str) -> bool:
    """Whether a run of a script without spaces is a row of words of which at most one has a single sign."""
    words, plain = load_vocabulary().words, folded(run)
    if len(plain) > 40:
        return False
    best = [0] + [99] * len(plain)  # the least number of single signs up to here
    for end in range(1, len(plain) + 1):
        for start in range(max(0, end - 8), end):
            if plain[start:end] in words:
                best[end] = min(best[end], best[start] + (end - start == 1))
    return best[-1] <= (1 if len(plain) > 1 else 0)


def _is_compound(token: str) -> bool:
    """Whether CamelCase, or letters with digits, falls into safe words of two letters and short numbers."""
    pieces = PIECE.findall(token)
    if len(pieces) < 2 or "".join(pieces) != token or len(pieces) > 8:
        return False
    digits = sum(len(piece) for piece in pieces if piece.isdigit())
    return digits <= 3 and all(
        len(piece) <= 2 if piece.isdigit() else len(piece) > 1 and _is_word(piece) for piece in pieces
    )


def _joined(tokens: list[Token], original: str) -> str:
    """The kept tokens with what stood between them; one space where something is missing."""
    parts: list[str] = []
    gap = False
    for token in tokens:
        if token.kept:
            between = SEPARATORS.sub(" ", token.before)
            parts += [("\n" if "\n" in between else " ") if gap else between, token.text]
        gap = not token.kept
    text = _tidy("".join(parts))
    while text != original:  # what came together by the gaps must not be a date, an age or a number either
        original = text
        text = _tidy(NO_DATES.in_text(without_long_numbers(without_marked(text))).replace(GONE, " "))
    return text


def _tidy(text: str) -> str:
    """Without signs at the ends, brackets that hold nothing or lost their other half, and spaces in a row."""
    text = text.strip(SIGNS)
    if any(text.count(left) != text.count(right) for left, right in ("()", "[]")):
        text = re.sub(r"[()\[\]]", " ", text)
    text = re.sub(r"\(\s*\)|\[\s*\]", " ", text)
    text = re.sub(r"[ \t]*\n\s*", "\n", re.sub(r"[ \t]{2,}", " ", text)).strip(SIGNS)
    return text if any(char.isalnum() or char == DATED for char in text) else ""
