"""The answer key's entries, and the hand that plants identifiers and writes each of them down."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any, Literal

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID

from benchmarks.deidentification.identities import Person, native, word

Search = Literal["text", "number", "ink", "bits"]
"""text: in the bytes, in any encoding; number: a parsed value; ink: see burned.py; bits: high bits."""


@dataclass(frozen=True)
class Plant:
    """One identifier and its place or places. `box` of burned-in text: (row0, column0, row1, column1)."""

    token: str
    where: str
    kind: str
    search: Search = "text"
    box: tuple[int, int, int, int] | None = None

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


TEXT_VRS = ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "AE", "UR", "CS")
BYTES_VRS = ("OB", "OW", "UN", "OF", "OD", "OL")
NUMBER_VRS = ("UL", "SL", "FD", "UV", "SV", "AT")
LONGEST = {"SH": 16, "CS": 16, "AE": 16, "LO": 64, "PN": 64}
ASCII_ONLY = frozenset({"CS", "AE", "UR", "UI", "DS", "IS"})


@dataclass
class Hand:
    """Plants identifiers of one person; `planted` is the answer key of the file in the making."""

    random: Random
    person: Person
    day: date
    planted: list[Plant] = field(default_factory=list)

    def note(self, token: str, where: str, kind: str, search: Search = "text") -> str:
        for index, plant in enumerate(self.planted):
            if (plant.token, plant.search) == (token, search):
                self.planted[index] = Plant(token, f"{plant.where}; {where}", kind, search)
                return token
        self.planted.append(Plant(token, where, kind, search))
        return token

    def word(self, vr: str) -> str:
        """A new word, in the file's own script half of the time where the representation can hold it."""
        if vr in ASCII_ONLY or self.random.random() < 0.5:
            made = word(self.random)
            return made.upper()[:16] if vr in ("CS", "AE") else made
        return native(self.random, self.person.script)

    def value(self, vr: str, where: str, kind: str) -> Any:
        """A value of this representation that identifies, written down."""
        if vr in ("DA", "DT", "TM"):
            return self.time(vr, where, kind)
        if vr in ("DS", "IS"):
            return self.note(self.person.number, where, kind)
        if vr == "UI":
            return self.note(self.uid(), where, kind)
        if vr in BYTES_VRS or vr == "US":
            return self._bytes(vr, where, kind)
        if vr in NUMBER_VRS:
            return self._number(vr, where, kind)
        if vr == "AS":
            return "067Y"
        return self._text(vr, where, kind)

    def _text(self, vr: str, where: str, kind: str) -> str:
        token = self.note(self.word(vr), where, kind)
        if vr == "PN":
            return f"{token}^{self.person.given[:1]}" if token.isascii() else f"X^Y={token}^"
        if vr == "UR":
            return f"https://{token.lower()}.example/viewer"
        if vr in ("LT", "ST", "UT"):
            return f"Seen today, chest pain, told to ring {token} at home"
        return token[: LONGEST.get(vr, 64)] if vr in ("SH", "CS", "AE") else f"chest {token}"

    def _bytes(self, vr: str, where: str, kind: str) -> Any:
        raw = self.note(word(self.random, 4), where, kind).encode()
        raw += b" " * (-len(raw) % 8)
        return (
            [int.from_bytes(raw[i : i + 2], "little") for i in range(0, len(raw), 2)] if vr == "US" else raw
        )

    def _number(self, vr: str, where: str, kind: str) -> Any:
        number = int(self.note(self.person.number, where, kind, "number"))
        return float(number) if vr == "FD" else Tag(number) if vr == "AT" else number

    def uid(self) -> str:
        return f"1.2.410.{self.person.number}.{self.random.randrange(10**9, 10**10)}"

    def time(self, vr: str, where: str, kind: str) -> str:
        """A day within 300 days of the study, so that shifted and original days never meet; odd seconds."""
        day = self.day + timedelta(days=self.random.randrange(1, 300))
        clock = f"{self.random.randrange(24):02}{self.random.randrange(60):02}{self.random.randrange(60):02}"
        fraction = f"{clock}.{self.random.randrange(100_000, 999_999)}"
        if vr == "TM":
            return self.note(fraction, where, "time")
        if vr == "DA":
            return self.note(f"{day:%Y%m%d}", where, "date")
        self.note(f"{day:%Y%m%d}", where, "date")
        return f"{day:%Y%m%d}{fraction}+0900"

    def put(self, item: Dataset, tag: int, vr: str, kind: str, path: str = "") -> None:
        """Plant into an attribute that the item doesn't have yet."""
        if tag not in item:
            where = f"{path}({tag >> 16:04X},{tag & 0xFFFF:04X}) {vr}"
            value = self.value(vr, where, kind)
            item[tag] = DataElement(tag, vr, UID(value) if vr == "UI" else value)

    def nest(self, item: Dataset, path: list[int]) -> tuple[Dataset, str]:
        """The innermost item of sequences within sequences, made where they are missing."""
        where = ""
        for tag in path:
            if tag not in item or not isinstance(item[tag].value, Sequence) or not item[tag].value:
                item[tag] = DataElement(tag, "SQ", Sequence([Dataset()]))
            item = item[tag].value[0]
            where += f"({tag >> 16:04X},{tag & 0xFFFF:04X})/"
        return item, where
