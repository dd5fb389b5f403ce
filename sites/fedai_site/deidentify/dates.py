"""Dates and times of one patient: removed, shifted by whole days, cut to the year, or kept.

Values of DA, DT and TM (PS3.5, 6.2, and their forms of ACR-NEMA 300), and dates within text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Literal

from fedai_site.deidentify.datewords import Found, find, written

Mode = Literal["remove", "shift", "year", "keep"]

PADDING = " \0"
DATE = re.compile(r"(?P<y>[0-9]{4})(?P<s>\.?)(?P<m>[0-9]{2})(?P=s)(?P<d>[0-9]{2})")
HOUR, SIXTY, SECOND = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]", "(?:[0-5][0-9]|60)"
FRACTION = r"(?:\.[0-9]{1,6})?"
TIME = re.compile(
    f"{HOUR}(?:{SIXTY}(?:{SECOND}{FRACTION})?)?|{HOUR}:{SIXTY}(?::{SECOND}{FRACTION})?",
)
DATETIME = re.compile(
    r"(?P<y>[0-9]{4})(?:(?P<m>0[1-9]|1[0-2])(?:(?P<d>[0-9]{2})"
    f"(?P<t>{HOUR}(?:{SIXTY}(?:{SECOND}{FRACTION})?)?)?)?)?"
    r"(?P<z>-(?:0[0-9]|1[0-2])[0-5][0-9]|\+(?:0[0-9]|1[0-4])[0-5][0-9])?"
)


@dataclass(frozen=True, slots=True)
class Dates:
    """What happens to the dates of one patient.

    `offset_days` is a whole number of days, the same for all that a patient has, so that every interval stays
    exact and the time of day stays as it is. It can't be 0 where `mode` is 'shift' (ValueError).
    """

    mode: Mode
    offset_days: int = 0

    def __post_init__(self) -> None:
        if self.mode == "shift" and not self.offset_days:
            raise ValueError("a shift by 0 days would leave every date as it is")

    def value(self, vr: str, raw: str) -> str | None:
        r"""The value (several with '\' between them, ranges with '-') as it may be kept, without padding.

        None if nothing of it may be kept: it isn't a value of its representation ('DA', 'DT' or 'TM'), isn't
        in the calendar, can't be shifted exactly (a DT without its day; a date that would leave the years 1
        to 9999), or the mode is 'remove'. An empty value stays empty. 'year' gives YYYY0101 for DA and DT
        (YYYY if the DT had no month), and nothing for TM. Raises ValueError for any other representation.
        """
        return _value(self, vr, raw)

    def part(self, vr: str, part: str) -> str | None:
        """One value without padding: a single one, or a range."""
        single = self._single(vr, part)
        if single is not None or _fits(vr, part):
            return single
        return self._range(vr, part)

    def _range(self, vr: str, part: str) -> str | None:
        """`A-B`, `A-` or `-B`. A DT's zone has a '-' as well, so each '-' is tried."""
        for dash in re.finditer("-", part):
            first, last = part[: dash.start()].strip(PADDING), part[dash.end() :].strip(PADDING)
            if not (first or last) or not all(_fits(vr, end) for end in (first, last) if end):
                continue
            ends = [self._single(vr, end) if end else "" for end in (first, last)]
            return None if None in ends else f"{ends[0]}-{ends[1]}"
        return None

    def _single(self, vr: str, value: str) -> str | None:
        if not _fits(vr, value) or self.mode == "remove":
            return None
        if self.mode == "keep":
            return value
        if vr == "TM":
            return value if self.mode == "shift" else None
        return self._year(vr, value) if self.mode == "year" else self._shifted(vr, value)

    def _shifted(self, vr: str, value: str) -> str | None:
        match = (DATE if vr == "DA" else DATETIME).fullmatch(value)
        if match is None or match["d"] is None:
            return None
        moved = self.moved(*(int(match[name]) for name in "ymd"))
        if moved is None:
            return None
        dot = match["s"] if vr == "DA" else ""
        return f"{moved.year:04}{dot}{moved.month:02}{dot}{moved.day:02}" + value[match.end("d") :]

    @staticmethod
    def _year(vr: str, value: str) -> str:
        return value[:4] if vr == "DT" and not re.match("[0-9]{6}", value) else value[:4] + "0101"

    def moved(self, year: int, month: int, day: int) -> date | None:
        """The date so many days later; None if either isn't in the calendar's years 1 to 9999."""
        try:
            return date(year, month, day) + timedelta(days=self.offset_days)
        except (ValueError, OverflowError):
            return None

    def in_text(self, text: str) -> str:
        """The text with each date in it shifted (in its own form), cut to its year, removed or left.

        What is a date but can't be read for certain (03/04/2019, 12.3.19, 190312, an era, a month without its
        day) is removed unless the mode is 'keep'; so are, in the modes 'remove' and 'year', times of day.
        """
        return "".join(part for part, _ in self.parts(text))

    def parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """The text in pieces, each with whether it is (what is left of) a date or time."""
        position = 0
        for found in find(text):
            if found.start > position:
                yield text[position : found.start], False
            yield self._found(found), True
            position = found.end
        if position < len(text):
            yield text[position:], False

    def _found(self, found: Found) -> str:
        if self.mode == "keep":
            return found.text
        if self.mode == "year":
            return f"{found.year:04}" if found.year else ""
        if self.mode == "remove":
            return ""
        if found.is_time:
            return found.text
        moved = self.moved(found.year, found.month, found.day) if found.day else None
        return written(found, moved) if moved else ""


def _fits(vr: str, value: str) -> bool:
    """Whether it is one value of the representation, and a day that the calendar has."""
    match = {"DA": DATE, "DT": DATETIME, "TM": TIME}[vr].fullmatch(value)
    if match is None or vr == "TM":
        return match is not None
    try:
        date(int(match["y"]), int(match["m"] or 1), int(match["d"] or 1))
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1024)  # the objects of a study share most of their dates
def _value(dates: Dates, vr: str, raw: str) -> str | None:
    if vr not in ("DA", "DT", "TM"):
        raise ValueError(f"{vr} holds no date")
    parts = [part.strip(PADDING) for part in raw.split("\\")]
    if not any(parts):
        return "\\".join(parts)
    changed = [dates.part(vr, part) if part else "" for part in parts]
    return None if None in changed else "\\".join(part or "" for part in changed)
