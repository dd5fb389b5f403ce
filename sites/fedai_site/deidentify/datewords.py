"""Dates as people and devices write them within text: where they are, and what they mean.

Pure pattern matching over Unicode text: digits of any script, Latin month names of six languages, Korean,
Japanese and Chinese. Whatever looks like a date but can be read in two ways is found as well, as one without
a meaning, so that it can be removed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date

MONTHS: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.split())
    for line in (
        "jan feb mar apr may jun jul aug sep oct nov dec",
        "january february march april may june july august september october november december",
        "jan feb mär apr mai jun jul aug sep okt nov dez",
        "januar februar märz april mai juni juli august september oktober november dezember",
        "janv févr mars avr mai juin juil août sept oct nov déc",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "ene feb mar abr may jun jul ago sep oct nov dic",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "gen feb mar apr mag giu lug ago set ott nov dic",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "jan fev mar abr mai jun jul ago set out nov dez",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    )
)
OTHER = {"sept": 9, "jänner": 1, "feber": 2, "maerz": 3, "mrz": 3, "fevrier": 2, "aout": 8, "dec": 12}
NUMBERS = {name: number for names in MONTHS for number, name in enumerate(names, 1)} | OTHER

# The pieces of the patterns. Groups named y, m, d (digits), n (month's name), a and b (day or month) are what
# is read; w is a weekday, which goes with any change.
YEAR, TWO = r"(?P<y>(?:1[89]|2[01])\d\d)", r"\d{1,2}"
CLOCK = r"(?:[01]?\d|2[0-3])[:：h]\s?[0-5]\d(?:[:：]\s?(?:[0-5]\d|60)(?:[.,]\d{1,9})?)?"
HALF = r"(?:\s?[ap]\.?m\b\.?)?"
ZONE = r"(?:\s?(?:Z\b|UTC\b|GMT\b|KST\b|JST\b|CET\b|CEST\b|[+-]\d\d:?\d\d(?!\d)))?"
TIME_AFTER = rf"(?:[ T,_]{{1,2}}{CLOCK}{HALF}{ZONE})?"
NAME = "(?P<n>" + "|".join(sorted(NUMBERS, key=lambda name: (-len(name), name))) + r")(?![^\W\d_])\.?"
NAME_START = r"(?<![^\W\d_])"
ANY_NAME = NAME.replace("?P<n>", "?:")
DAY = r"(?P<d>\d{1,2})(?P<o>st|nd|rd|th|er|º)?\.?(?!\d)"
GAP = r"[\s\-./_,，]{0,3}(?:de\s|del\s|of\s)?\s?"
WEEKDAYS = (
    "mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs?(?:day)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?"
    "|montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonntag"
)
WEEKDAY_BEFORE = rf"(?P<w>\b(?:{WEEKDAYS})\.?,?\s)?"
WEEKDAY_AFTER = r"(?P<w>\s?[(（][월화수목금토일月火水木金土日][)）])?"
DASH = r"[-./_‐‑‒–—−．／，,]"
ERAS = "明治|大正|昭和|平成|令和|民國|民国|단기|서기|쇼와|헤이세이|레이와"

PATTERNS: dict[str, str] = {
    "number": r"(?<!\d)\d{6}\s?[-–]\s?[0-9]\d{6}(?!\d)",  # Korean resident registration number: a birth date
    "days": rf"(?<!\d){TWO}\.?\s?[-–]\s?{TWO}\.?\s?(?:{ANY_NAME}|{TWO}\.)\s?{YEAR}(?!\d)",
    "compact": rf"(?<!\d){YEAR}(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])"
    r"(?:[T _-]?(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?(?:Z\b|[+-]\d{4})?(?!\d)"
    rf"|{TIME_AFTER})(?!\d)",
    "ymd": rf"(?<!\d){WEEKDAY_BEFORE}{YEAR}\s?{DASH}\s?(?P<m>{TWO})\s?{DASH}\s?(?P<d>{TWO})(?!\d)"
    rf"{WEEKDAY_AFTER.replace('?P<w>', '?P<v>')}{TIME_AFTER}",
    "spaced": rf"(?<!\d){YEAR}\s(?P<m>\d\d)\s(?P<d>\d\d)(?!\d){TIME_AFTER}",
    "east": rf"(?<!\d){YEAR}\s?[년年]\s?(?P<m>{TWO})\s?[월月]\s?(?P<d>{TWO})\s?[일日]{WEEKDAY_AFTER}"
    rf"{TIME_AFTER}",
    "dmy": rf"(?<!\d){WEEKDAY_BEFORE}(?P<a>{TWO})\s?(?P<s>{DASH})\s?(?P<b>{TWO})\s?{DASH}\s?"
    rf"(?P<y>[12]\d{{3}})(?!\d){TIME_AFTER}",
    "day_name": rf"(?<!\d){WEEKDAY_BEFORE}{DAY}{GAP}{NAME}{GAP}{YEAR}(?!\d){TIME_AFTER}",
    "name_day": rf"{WEEKDAY_BEFORE}{NAME_START}{NAME}[\s\-./_]{{0,2}}{DAY}"
    rf"(?:[\s\-./_,]{{1,3}}{CLOCK}{HALF}{ZONE})?[\s\-./_,]{{1,3}}{YEAR}(?!\d){TIME_AFTER}",
    "year_name": rf"(?<!\d){YEAR}{GAP}{NAME}{GAP}{DAY}{TIME_AFTER}",
    # from here on without a meaning, or with a year alone
    "week": rf"(?<!\d){YEAR}-?W\d\d(?:-?[1-7])?(?!\d)",
    "era": rf"(?:{ERAS})\s?(?:\d{{1,4}}|元)\s?[년年](?:\s?{TWO}\s?[월月])?(?:\s?{TWO}\s?[일日])?"
    rf"|(?<![^\W_])[MTSHR]\.?\d{{1,2}}{DASH}{TWO}{DASH}{TWO}(?!\d)",
    "year_month": rf"(?<!\d){YEAR}\s?[년年](?:\s?{TWO}\s?[월月])?",
    "month_day": rf"(?<!\d){TWO}\s?[월月]\s?{TWO}\s?[일日]{WEEKDAY_AFTER}",
    "short_year": rf"(?<!\d)(?<!\d[.])['’]?{TWO}\s?{DASH}\s?{TWO}\s?{DASH}\s?['’]?{TWO}(?!\d)(?![.]\d)",
    "name_days": rf"{NAME_START}{ANY_NAME}\s?{TWO}\s?[-–]\s?{TWO}[,\s]{{1,2}}{YEAR}(?!\d)",
    "name_year": rf"{NAME_START}{NAME}{GAP}(?:{YEAR}|['’]\d\d)(?!\d)",
    "year_name_alone": rf"(?<!\d){YEAR}{GAP}{NAME_START}{NAME}",
    "digits_year_month": rf"(?<![\d.]){YEAR}[-./](?:0[1-9]|1[0-2])(?![\d.])"
    r"|(?<![\d.])(?:0[1-9]|1[0-2])[-./](?:19|20)\d\d(?![\d.])",
    "day_month": rf"(?<!\d)\d{{1,2}}(?:st|nd|rd|th|\.)?{GAP}{ANY_NAME}(?:{GAP}['’]?\d\d(?!\d))?"
    rf"|{NAME_START}{ANY_NAME}[\s\-./_]{{0,2}}\d{{1,2}}(?:st|nd|rd|th)?(?![\d])(?:,?\s['’]?\d\d(?!\d))?",
    "six": r"(?<!\d)\d{6}(?!\d)",
    "eight": r"(?<!\d)\d{8}(?!\d)",
    "long": r"(?<!\d)\d{9,}(?!\d)",
    "clock": rf"(?<![\d:.]){CLOCK}{HALF}{ZONE}(?![\d:])"
    rf"|(?:오전|오후|午前|午後)?\s?{TWO}\s?[시時]\s?(?:{TWO}\s?[분分])?(?:\s?{TWO}\s?[초秒])?",
}


class _Plain(dict[int, int]):
    """Digits of any script and full-width forms to ASCII, one character for one."""

    def __missing__(self, code: int) -> int:
        digit = unicodedata.decimal(chr(code), None)
        plain = 0x30 + digit if digit is not None else code - 0xFEE0 if 0xFF01 <= code <= 0xFF5E else code
        self[code] = plain
        return plain


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


EACH = {name: _compiled(pattern) for name, pattern in PATTERNS.items()}
ANY = _compiled(
    "|".join(f"(?P<{name}>{re.sub(r'[?]P<[a-z]>', '?:', text)})" for name, text in PATTERNS.items())
)
PLAIN = _Plain()
DIGIT = re.compile("[0-9元]")  # there is no date without one
PLAUSIBLE = re.compile(r"(?=((?:1[89]|2[01])\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])))")


@dataclass(frozen=True, slots=True)
class Found:
    """One date in a text: characters `start` to `end`. Day, month and year are 0 if not certain."""

    start: int
    end: int
    text: str
    year: int = 0
    month: int = 0
    day: int = 0
    is_time: bool = False
    groups: dict[str, tuple[int, int]] = field(default_factory=dict)  # where y, m, d, n stand, from the start


def find(text: str) -> Iterator[Found]:
    """The dates and times of day in the text, from left to right, never overlapping."""
    plain, position = text.translate(PLAIN), 0
    if DIGIT.search(plain) is None:
        return
    while match := ANY.search(plain, position):
        name = match.lastgroup or ""
        position = max(match.end(), match.start() + 1)
        exact = EACH[name].match(plain, match.start())
        found = _read(name, exact) if exact and exact.end() > exact.start() else None
        if found is not None:
            yield replace(found, text=text[found.start : found.end])
            position = found.end


def _read(name: str, match: re.Match[str]) -> Found | None:
    """What the match means, or None if it isn't a date after all."""
    start, end, text = match.start(), match.end(), match.group()
    if name == "clock":
        return Found(start, end, text, is_time=True)
    if name in ("six", "eight", "long", "short_year"):
        return Found(start, end, text) if _might_be_date(name, text) else None
    groups = match.groupdict()
    year = int(groups["y"]) if groups.get("y") else 0
    day, month, places = _day_and_month(match, groups)
    if not day:
        return Found(start, end, text, year)
    spans = {key: _span(match, places.get(key, key)) for key in "ymdnwvo"}
    return Found(start, end, text, year, month, day, False, {key: at for key, at in spans.items() if at})


def _span(match: re.Match[str], group: str) -> tuple[int, int] | None:
    if group not in match.re.groupindex or match[group] is None:
        return None
    return match.start(group) - match.start(), match.end(group) - match.start()


def _day_and_month(match: re.Match[str], groups: dict[str, str | None]) -> tuple[int, int, dict[str, str]]:
    """Day, month, and which groups they stand in; 0, 0 if they aren't certain."""
    if groups.get("d"):
        month = NUMBERS[str(groups["n"]).lower()] if groups.get("n") else int(str(groups["m"]))
        return int(str(groups["d"])), month, {}
    if not groups.get("a"):
        return 0, 0, {}
    first, second = int(str(groups["a"])), int(str(groups["b"]))
    if first > 12 or first == second or (groups["s"] in (".", "．") and second <= 12):
        return first, second, {"d": "a", "m": "b"}
    return (second, first, {"d": "b", "m": "a"}) if second > 12 else (0, 0, {})


def _might_be_date(name: str, text: str) -> bool:
    """Whether digits without separators, or with a year of two digits, are a date in any order."""
    if name == "long":
        born = len(text) == 13 and _might_be_date("six", text[:6])
        return born or any(_is_day(found[:4], found[4:6], found[6:]) for found in PLAUSIBLE.findall(text))
    if name == "eight":
        return _is_day(text[4:], text[2:4], text[:2]) or _is_day(text[4:], text[:2], text[2:4])
    parts = re.findall(r"\d+", text) if name == "short_year" else [text[0:2], text[2:4], text[4:6]]
    first, second, third = parts
    if name == "short_year" and len(first) < 2 and len(third) < 2:
        return False
    return (
        _is_day(f"20{first:0>2}", second, third)
        or _is_day(f"20{third:0>2}", second, first)
        or _is_day(f"20{third:0>2}", first, second)
    )


def _is_day(year: str, month: str, day: str) -> bool:
    if not 1800 <= int(year) < 2200:
        return False
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


def written(found: Found, day: date) -> str:
    """Another date in the form of the one found: same order, separators, digits and language."""
    text = found.text
    values = {"y": day.year, "m": day.month, "d": day.day}
    padded = all(found.groups[key][1] - found.groups[key][0] > 1 for key in "md" if key in found.groups)
    for key, (start, end) in sorted(found.groups.items(), key=lambda item: -item[1][0]):
        old = text[start:end]
        new = _month(old, day.month) if key == "n" else ""
        if key in values:
            new = f"{values[key]:0{len(old) if padded or key == 'y' else 1}d}"
        text = text[:start] + new + text[end:]
    return text


def _month(old: str, number: int) -> str:
    """The month's name in the language, length and case of another one."""
    names = next((names for names in MONTHS if old.lower() in names), MONTHS[0])
    new = names[number - 1]
    if old.isupper():
        return new.upper()
    return new.capitalize() if old[:1].isupper() else new
