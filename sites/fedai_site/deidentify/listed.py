"""The rules that follow from lists: Table E.1-1, media directories, the patient, marks, the profile's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from fedai_site.deidentify.actions import Action, Decision
from fedai_site.deidentify.places import BINARY, DATES, NEEDED, PATIENT_ID, TEXT, Place
from fedai_site.deidentify.profile import Option, Profile
from fedai_site.deidentify.table import load_table

MARKERS = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})
TIME_ZONE = 0x00080201
CHARACTERISTICS = frozenset({0x00101010, 0x00101020, 0x00101030, 0x0072005F})  # age, size, weight, any age
GROUPS = frozenset({0x00102160, 0x00102162})  # Ethnic Group, Ethnic Groups


class Directory:
    """Group 0004 of a media directory: its structure stays, names of files become pseudonyms."""

    name = "directory"
    FILE_ID, FILE_SET = 0x00041500, 0x00041130
    KEPT = frozenset({0x00041200, 0x00041202, 0x00041212, 0x00041400, 0x00041410, 0x00041420})
    CLASSES = frozenset({0x00041432, 0x00041510, 0x00041512, 0x0004151A})

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        if not place.is_directory or place.tag >> 16 != 4:
            return None
        if place.tag == 0x00041220 and place.written_vr == "SQ":
            return Decision(Action.DESCEND, self.name, "the directory's records")
        if place.tag == self.FILE_ID:
            return Decision(Action.PSEUDONYM, self.name, "names of files may name patients")
        if place.tag in self.KEPT and place.written_vr in BINARY:
            return Decision(Action.KEEP, self.name, "offsets and flags of the directory", "binary numbers")
        if place.tag in self.CLASSES:
            return Decision(Action.UID, self.name, "kind of the file")
        if place.tag == 0x00041430:
            return Decision(Action.KEEP, self.name, "kind of the record", "an enumerated term", Action.DUMMY)
        if place.tag == 0x00041511:
            return Table().decide(place, profile)
        return Decision(
            Action.EMPTY if place.tag == self.FILE_SET else Action.REMOVE, self.name, "may name anybody"
        )

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        yield "group 0004 of a DICOMDIR", "records, offsets and kinds stay; file names become pseudonyms"


class Patient:
    """PatientID becomes the patient's pseudonym, wherever it stands."""

    name = "patient"

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        if place.tag != PATIENT_ID:
            return None
        return Decision(Action.PSEUDONYM, self.name, "keyed, so that a patient's objects stay together")

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        yield "(0010,0020) PatientID", "pseudonym"


class Markers:
    """What an earlier de-identification said about itself; the truth about this one is written at the end."""

    name = "markers"
    CLAIMS = frozenset({0x00280301, 0x00280302})

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        if place.tag in MARKERS:
            return Decision(Action.REMOVE, self.name, "set anew to what was really done")
        if place.tag in self.CLAIMS:
            why = "that nothing is left to see is said only after having looked"
            return Decision(Action.KEEP, self.name, why, "YES")
        return None

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        yield "(0012,0062-0064), (0028,0303)", "set anew"
        yield "(0028,0301), (0028,0302)", "YES stays; NO is said only after having looked, never copied"


class Chosen:
    """What the profile's file names under `remove` and `keep`."""

    name = "profile"

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        if place.tag in profile.remove:
            return Decision(place.hole, self.name, "the profile removes it")
        if place.tag in profile.keep and place.written_vr == place.vr:
            why, check = "the profile keeps it", "no name or number of the patient"
            return Decision(Action.KEEP, self.name, why, check, place.hole)
        return None

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        for verb, tags in (
            ("removed", profile.remove),
            ("kept unless it mentions the patient", profile.keep),
        ):
            for tag in sorted(tags):
                yield f"({tag >> 16:04X},{tag & 0xFFFF:04X})", verb


class Table:
    """PS3.15 Table E.1-1: the Basic Profile, and the columns of the chosen options.

    Where several options speak about one attribute, cleaning (C) goes before keeping (K): what one option
    wants cleaned another may not keep as it is. Composite actions are decided by the attribute's Type at its
    place: what the IOD doesn't have there or only may have (Type 3) is removed. In a DICOMDIR, where records
    must have some attributes that are to be removed from images, those stay without a value.
    """

    name = "Table E.1-1"
    COMPOSITES: ClassVar = {
        "X/Z": {"2": "Z", "2C": "Z", "1": "Z", "1C": "Z"},
        "X/D": {"1": "D", "1C": "D", "2": "D", "2C": "D"},
        "X/Z/D": {"1": "D", "1C": "D", "2": "Z", "2C": "Z"},
        "Z/D": {"1": "D", "1C": "D", "": "Z", "2": "Z", "2C": "Z", "3": "Z"},
    }

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        row = load_table().row(place.tag)
        if row is None:
            return None
        is_bare = place.is_directory and row.basic == "X" and place.type in NEEDED
        basic = self._basic("Z" if is_bare else row.basic, place)
        cells = {row.options.get(option.column): option for option in sorted(profile.options)}
        if "C" in cells:
            return self._clean(place, basic, profile, cells["C"])
        if "K" in cells:
            return self._keep(place, basic, cells["K"])
        return basic

    def _basic(self, code: str, place: Place) -> Decision:
        single = self.COMPOSITES[code].get(place.type, "X") if code in self.COMPOSITES else code
        action = {
            "X": Action.REMOVE,
            "Z": Action.DUMMY if place.type in ("1", "1C") and place.vr != "SQ" else Action.EMPTY,
            "D": {"SQ": Action.DESCEND, "UI": Action.UID}.get(place.vr, Action.DUMMY),
            "U": Action.UID,
            "X/Z/U*": Action.DESCEND,
        }[single]
        because = f" (Type {place.type or '3 or none'})" if code in self.COMPOSITES else ""
        is_lie = action is Action.DESCEND and place.written_vr != "SQ"
        return Decision(Action.EMPTY if is_lie else action, self.name, f"Basic Profile: {code}{because}")

    def _clean(self, place: Place, basic: Decision, profile: Profile, option: Option) -> Decision:
        why, otherwise = f"{option.value}: C", self._otherwise(basic)
        if place.written_vr == "SQ" and place.vr == "SQ":
            is_content = option is Option.STRUCTURED_CONTENT
            return Decision(Action.CONTENT if is_content else Action.DESCEND, self.name, why, "", otherwise)
        if place.vr in DATES:
            return Decision(Action.DATE, self.name, why, "", otherwise)
        if place.vr in TEXT and place.tag != TIME_ZONE and place.written_vr in TEXT:
            return Decision(Action.CLEAN, self.name, why, "", otherwise)
        if place.vr == "CS" and place.written_vr == "CS":
            return Decision(Action.KEEP, self.name, why, "a term", otherwise)
        return Decision(Action.DUMMY, self.name, why) if place.vr == "AE" else basic

    def _keep(self, place: Place, basic: Decision, option: Option) -> Decision:
        why, otherwise = f"{option.value}: K", self._otherwise(basic)
        if place.written_vr != place.vr and not {place.written_vr, place.vr} <= TEXT:
            return basic
        if place.vr == "SQ":
            return Decision(Action.DESCEND, self.name, why)
        if place.vr == "UI":
            return Decision(Action.KEEP, self.name, f"{why}, if it is a UID", "a UID", Action.UID)
        if place.tag in CHARACTERISTICS:
            return Decision(Action.BAND, self.name, f"{why}, extremes cut off", "", otherwise)
        check = self._check(place, option)
        return Decision(Action.KEEP, self.name, why, check, otherwise)

    @staticmethod
    def _check(place: Place, option: Option) -> str:
        named = {TIME_ZONE: "an offset from UTC", **dict.fromkeys(GROUPS, "a common word")}.get(place.tag)
        if named or place.vr in DATES:
            return named or "a date or time"
        if place.vr == "CS" and option is Option.PATIENT:
            return "a term"
        by_vr = {"IS": "a number", "DS": "a number"} | dict.fromkeys(BINARY, "binary numbers")
        return by_vr.get(place.vr) or (
            "bulk numbers" if place.vr[0] == "O" else "no name or number of the patient"
        )

    @staticmethod
    def _otherwise(basic: Decision) -> Action:
        """What the Basic Profile does, if keeping or cleaning isn't possible."""
        single = (Action.REMOVE, Action.EMPTY, Action.DUMMY)
        return basic.action if basic.action in single else Action.REMOVE

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        table = load_table()
        count = len(table.rows) + len(table.patterns)
        yield f"PS3.15 Table E.1-1, edition {table.edition}, {count} rows", f"as it says for {profile.name}"
