"""One object's walk: asks the rules about each attribute at every depth and builds anew what may stay.

The output is built up from nothing, so an attribute that no rule allows can't be in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID_dictionary

from fedai_site.deidentify import bulk, codes, content, demographics, directory, icc, private, safeprivate
from fedai_site.deidentify.actions import Action, Decision, dummy
from fedai_site.deidentify.checks import CHECKS, Value
from fedai_site.deidentify.dates import Dates
from fedai_site.deidentify.iod import Level, known_sop_classes
from fedai_site.deidentify.known import Known, bytes_of, encodings_of, items_of, text_of
from fedai_site.deidentify.places import DATES, PATIENT_ID, Place
from fedai_site.deidentify.profile import Profile
from fedai_site.deidentify.rules import Codes, decide
from fedai_site.deidentify.table import standard_vr
from fedai_site.deidentify.terms import is_term
from fedai_site.quarantine import Quarantine, Reason

MAXIMUM_DEPTH = 32
MAXIMUM_PLANS = 100_000
UTF_8 = "utf8"
Element: TypeAlias = DataElement | RawDataElement


class Plan:
    """The decisions of one profile, remembered by place: they don't depend on values."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._decisions: dict[tuple[int, bool, bool], dict[tuple[int, str | None], Decision]] = {}
        self._levels: dict[int, Level] = {}
        self._count = 0

    def at(self, level: Level, is_top: bool, is_directory: bool) -> dict[tuple[int, str | None], Decision]:
        """What is decided already for attributes of this level: (tag, VR as written) -> decision."""
        if self._count > MAXIMUM_PLANS:
            self._decisions, self._levels, self._count = {}, {}, 0
        self._levels[id(level)] = level
        return self._decisions.setdefault((id(level), is_top, is_directory), {})

    def decide(self, tag: int, vr: str | None, level: Level, is_top: bool, is_directory: bool) -> Decision:
        """The decision for an attribute written with `vr` (None: the file doesn't say)."""
        self._count += 1
        standard = standard_vr(tag)
        written = vr if vr not in (None, "UN") else standard
        is_one_of = " or " in (written or "")
        kind = level.type(tag) or (directory.TYPES.get(tag, "") if is_directory else "")
        known = standard if is_one_of else written or "UN"
        place = Place(tag, standard, known, kind, is_top, is_directory)
        return decide(place, self.profile)


@dataclass
class Names:
    """Where pseudonyms come from during one object's walk."""

    patient: str
    patient_id: str
    of_patient: Callable[[Dataset, tuple[str, ...]], str]
    uid: Callable[[str], str]
    file_id: Callable[[str], str]


@dataclass
class Item:
    """One data set on the way: the original, what becomes of it, and how its values are stored."""

    original: Dataset
    level: Level
    depth: int
    encodings: tuple[str, ...]
    implicit: bool
    little: bool
    clean: dict[BaseTag, Element] = field(default_factory=dict)


class Walk:
    """Cleans the data sets of one object."""

    def __init__(
        self, plan: Plan, names: Names, known: Known, dates: Dates, *, is_directory: bool = False
    ) -> None:
        self.plan, self.names, self.known, self.dates = plan, names, known, dates
        self.actions: Counter[str] = Counter()
        self.is_directory = is_directory
        self.has_unicode = False
        self.has_dates = False
        self.blocks: tuple[private.Block, ...] = ()
        self._apply: dict[Action, Callable[[Item, int, Element, Decision], Action]] = {
            Action.KEEP: self._keep,
            Action.EMPTY: self._replace,
            Action.DUMMY: self._replace,
            Action.UID: self._uid,
            Action.PSEUDONYM: self._pseudonym,
            Action.DATE: self._date,
            Action.CLEAN: self._clean,
            Action.BAND: self._band,
            Action.MEANING: self._meaning,
            Action.PRIVATE: self._private,
            Action.ICC: self._icc,
            Action.DESCEND: self._descend,
            Action.CONTENT: self._content,
        }

    def item(
        self,
        original: Dataset,
        level: Level,
        depth: int = 0,
        inherited: tuple[str, ...] = (),
        overriding: dict[int, Decision] | None = None,
    ) -> Dataset:
        """The clean copy of a data set and all below it. Raises Quarantine."""
        if depth > MAXIMUM_DEPTH:
            raise Quarantine(Reason.UNREADABLE, f"sequences nested deeper than {MAXIMUM_DEPTH}")
        implicit, little = encoding(original)
        item = Item(original, level, depth, encodings_of(original, inherited), implicit, little)
        decided = self.plan.at(level, depth == 0, self.is_directory)
        taken = self.actions
        for tag, element in list(original.items()):
            key = (tag, element.VR)
            decision = decided.get(key)
            if decision is None:
                decision = self.plan.decide(int(tag), element.VR, level, depth == 0, self.is_directory)
                decided[key] = decision
            if overriding and tag in overriding:
                decision = overriding[tag]
            taken[self.apply(item, tag, element, decision)] += 1
        clean = Dataset(item.clean)
        clean.set_original_encoding(implicit, little, UTF_8)
        return clean

    def apply(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        """Do what is decided about one attribute. Returns what was really done."""
        if decision.action is Action.REMOVE:
            return Action.REMOVE
        return self._apply[decision.action](item, tag, element, decision)

    def value(self, item: Item, tag: int, element: Element, known_vr: str = "") -> Value:
        """The element's value with all that a check needs."""
        vr = known_vr or (element.VR if element.VR not in (None, "UN") else standard_vr(tag))
        vr = "US" if vr and " or " in vr else vr
        raw = bytes_of(element, item.little)
        return Value(
            raw, vr or "UN", int(tag), item.little, element, item.encodings, self.known, item.original
        )

    def put(self, item: Item, tag: int, vr: str, value: bytes) -> None:
        """Set an attribute of the clean item to a value as it is to be stored."""
        tag = tag if isinstance(tag, BaseTag) else BaseTag(tag)
        item.clean[tag] = RawDataElement(tag, vr, len(value), value, 0, item.implicit, item.little)

    def _keep(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        if not decision.check:
            item.clean[tag] = self._as_it_is(item, tag, element)
            return Action.KEEP
        value = self.value(item, tag, element)
        if not CHECKS[decision.check](value):
            return self._fall(item, tag, element, decision)
        self.has_dates |= value.vr in DATES and bool(value.raw.strip(b" \0"))
        if (value.raw.isascii() and b"\x1b" not in value.raw) or value.vr not in _TEXT:
            item.clean[tag] = self._as_it_is(item, tag, element)
        else:
            self._put_text(item, tag, value.vr, value.text())
        return Action.KEEP

    def _as_it_is(self, item: Item, tag: int, element: Element) -> Element:
        """The element itself; not if it hides behind UN, which means little endian, in a big endian item."""
        if element.VR == "UN" and not item.little:
            raise Quarantine(Reason.UNREADABLE, "UN among big endian values")
        return element

    def _put_text(self, item: Item, tag: int, vr: str, text: str) -> None:
        value = text.encode("utf-8", "replace")
        self.has_unicode = self.has_unicode or not value.isascii()
        self.put(item, tag, vr, value)

    def _fall(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        """The value isn't what it must be: what its decision says for that case."""
        is_needed = (tag in ESSENTIAL and item.depth == 0) or bulk.is_needed(
            item.original, int(tag), item.little
        )
        if is_needed and bytes_of(element, item.little).strip(b" \0"):
            raise Quarantine(Reason.SUSPICIOUS_CONTENT, "numbers that the object needs aren't plain numbers")
        if decision.otherwise is Action.REMOVE:
            return Action.REMOVE
        if decision.otherwise is Action.UID:
            return self.map_uids(item, tag, element)
        return self._set(item, tag, decision.otherwise)

    def _set(self, item: Item, tag: int, action: Action) -> Action:
        vr = standard_vr(tag) or "UN"
        if vr == "SQ":
            item.clean[tag] = DataElement(tag, "SQ", Sequence([]))
        else:
            self.put(item, tag, vr, dummy(vr) if action is Action.DUMMY else b"")
        return action

    def _replace(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        return self._set(item, tag, decision.action)

    def _uid(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        return self.map_uids(item, tag, element)

    def map_uids(self, item: Item, tag: int, element: Element) -> Action:
        """Well-known UIDs stay, all others are mapped."""
        texts = bytes_of(element, item.little).decode("ascii", "replace").split("\\")
        uids = [text.strip(" \0") for text in texts]
        mapped = [uid if not uid or is_well_known(uid) else self.names.uid(uid) for uid in uids]
        self.put(item, tag, "UI", "\\".join(mapped).encode("ascii"))
        return Action.UID

    def _pseudonym(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        text = text_of(element, item.encodings)
        if tag == PATIENT_ID:
            is_same = not item.depth or text == self.names.patient_id
            name = self.names.patient if is_same else self.names.of_patient(item.original, item.encodings)
            self.put(item, tag, "LO", name.encode("ascii") if text.strip() or not item.depth else b"")
        else:
            parts = [self.names.file_id(part) for part in text.split("\\") if part.strip()]
            self.put(item, tag, "CS", "\\".join(parts).encode("ascii"))
        return Action.PSEUDONYM

    def _date(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        vr = standard_vr(tag)
        written = element.VR if element.VR not in (None, "UN") else vr
        text = text_of(element, item.encodings) if written in (*DATES, "LO", "SH", "ST") else ""
        moved = self.dates.value(vr, text) if written == vr else None
        if moved is None:
            return self._fall(item, tag, element, decision)
        self.put(item, tag, vr, moved.encode("ascii"))
        return Action.DATE

    def _clean(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        vr = standard_vr(tag)
        text = text_of(element, item.encodings)
        from fedai_site.deidentify.freetext import clean_text

        cleaned = clean_text(text, self.known.words, self.dates).strip()
        if not cleaned or self.known.holds_number(cleaned):
            return self._fall(item, tag, element, decision)
        self._put_text(item, tag, vr, cleaned)
        return Action.CLEAN

    def _band(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        band = BANDS[int(tag)](text_of(element, item.encodings))
        if band is None:
            return self._fall(item, tag, element, decision)
        self.put(item, tag, standard_vr(tag), band.encode("ascii"))
        return Action.BAND

    def _meaning(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        raw = bytes_of(element, item.little)
        if not raw.strip(b" \0"):
            return self._set(item, tag, Action.EMPTY)
        vr = standard_vr(tag)
        found = content.concept(item.original, item.encodings)
        is_public = codes.is_public(found.scheme, found.value) and not self.known.is_in(found.value)
        text = found.value if tag == Codes.VALUE else found.scheme
        if tag == Codes.MEANING:
            text = codes.meaning(found.scheme, found.value) if is_public else ""
            text = text or self._technical_meaning(found.meaning)
        elif not is_public:
            text = ""
        if not text or len(text) > 64:
            return self._set(item, tag, Action.DUMMY)
        self._put_text(item, tag, vr, text)
        return Action.MEANING if tag == Codes.MEANING else Action.KEEP

    def _technical_meaning(self, text: str) -> str:
        return text if is_term(text) and not self.known.is_in(text) else ""

    def _private(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        return safeprivate.clean_private(self, item, tag, element)

    def _icc(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        self.put(item, tag, "OB", icc.srgb())
        return Action.ICC

    def _descend(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        return self.sequence(item, tag)

    def sequence(self, item: Item, tag: int) -> Action:
        """A sequence's items, each cleaned by the same rules."""
        below = item.level.below(int(tag))
        step = partial(self.item, level=below, depth=item.depth + 1, inherited=item.encodings)
        cleaned = [step(found) for found in self._items(item, tag)]
        item.clean[tag] = DataElement(tag, "SQ", Sequence(cleaned))
        return Action.DESCEND

    def _items(self, item: Item, tag: int) -> list[Dataset]:
        found = items_of(item.original, tag)
        if found is None:
            raise Quarantine(Reason.UNREADABLE, "a sequence that isn't one")
        return found

    def _content(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        below = item.level.below(int(tag))
        options = frozenset(option.value for option in self.plan.profile.options)
        cleaned = []
        for found in self._items(item, tag):
            overriding = content.decisions(found, encodings_of(found, item.encodings), options)
            if overriding is not None:
                cleaned.append(self.item(found, below, item.depth + 1, item.encodings, overriding))
        if not cleaned and tag == content.CONTENT_SEQUENCE:
            return self._descend(item, tag, element, decision)
        if not cleaned:
            return self._fall(item, tag, element, decision)
        item.clean[tag] = DataElement(tag, "SQ", Sequence(cleaned))
        return Action.CONTENT


BANDS = {
    0x00101010: demographics.age,
    0x00101020: demographics.size,
    0x00101030: demographics.weight,
    0x0072005F: demographics.age,
}
_TEXT = frozenset({"LO", "SH", "ST", "LT", "UC", "UT", "PN", "CS", "AE", "AS", "UR"})
ESSENTIAL = frozenset({
    0x00280002, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102,
    0x00280103, 0x00281052, 0x00281053,
})  # fmt: skip
"""Samples, planes, frames, rows, columns, bits, rescale: another value would change the picture."""


def encoding(item: Dataset) -> tuple[bool, bool]:
    """(implicit VR, little endian) as the item's values really are, whatever its transfer syntax says."""
    for element in item.values():
        if isinstance(element, RawDataElement):
            return bool(element.is_implicit_VR), bool(element.is_little_endian)
    implicit, little = item.original_encoding
    return bool(implicit), little is not False


def is_well_known(uid: str) -> bool:
    """Whether the UID is one that the Standard itself defines."""
    return uid in UID_dictionary or uid in known_sop_classes()
