"""The ordered rules of de-identification: the first that has an answer for an attribute at its place decides.

What no rule allows goes. No rule looks at a value: what a value must be like is the decision's `check`, so
that a decision holds for all values at the same place, and can be explained without showing any.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.datadict import DicomDictionary

from fedai_site.deidentify.actions import Action, Decision
from fedai_site.deidentify.listed import Chosen, Directory, Markers, Patient, Table
from fedai_site.deidentify.places import BINARY, DATES, Place, Rule
from fedai_site.deidentify.profile import Option, Profile

PIXELS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x7FE00010})
PRIVATE_CHARACTERISTICS = 0x00080300


class Structure:
    """Group lengths, command, file meta, directory and padding groups; the character set, since what is kept
    is ASCII or UTF-8; what the object says about its private attributes.
    """

    name = "structure"

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        group, element = divmod(place.tag, 0x10000)
        is_structure = group < 8 or group >= 0xFFFA or element == 0 or place.tag in (0x00080001, 0x00080005)
        if is_structure or place.tag == PRIVATE_CHARACTERISTICS:
            return Decision(Action.REMOVE, self.name, "belongs to how the file was written")
        return None

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        yield (
            "group lengths, groups below 0008, FFFA and above, (0008,0001), (0008,0005), (0008,0300)",
            "removed",
        )
        yield "preamble, file meta", "written anew"


class Private:
    """Attributes of odd groups."""

    name = "private"

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        if not place.tag >> 16 & 1:
            return None
        if Option.SAFE_PRIVATE in profile.options:
            return Decision(
                Action.PRIVATE, self.name, "private: stays only if known to be safe by its creator"
            )
        return Decision(Action.REMOVE, self.name, "private: nobody can say what it holds")

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        is_kept = Option.SAFE_PRIVATE in profile.options
        yield (
            "private attributes (odd groups)",
            "kept if known to be safe, else removed" if is_kept else "removed",
        )


class CurvesAndOverlays:
    """Whole repeating groups 50xx and 60xx, so that no half of an overlay stays behind.

    With graphics as well: whether a drawing spells a name can't be told with certainty.
    """

    name = "curves and overlays"

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        if place.tag >> 24 not in (0x50, 0x60):
            return None
        return Decision(Action.REMOVE, self.name, "drawings may spell a name")

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        yield "repeating groups 50xx and 60xx", "removed; overlays in unused bits of pixels: set to zero"


class Pixels:
    """The image's own pixels stay; pixels inside a sequence (icons) go."""

    name = "pixels"
    BYTES = frozenset({"OB", "OW", "OF", "OD", "OV", "UN"})

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        if place.tag not in PIXELS:
            return None
        if not place.is_top:
            return Decision(Action.REMOVE, self.name, "an icon shows what the image shows")
        if not place.type:
            return Decision(Action.REMOVE, self.name, "isn't part of such an object")
        if place.written_vr not in self.BYTES:
            return Decision(Action.REMOVE, self.name, "isn't of its representation")
        return Decision(
            Action.KEEP, self.name, "the image itself; what it shows is searched by the pixel pass"
        )

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        yield (
            "(7FE0,xxxx) of the image",
            "kept, byte for byte; comments inside compressed streams: set to zero",
        )
        yield "(7FE0,xxxx) in sequences", "removed"


class BulkNumbers:
    """Tables and samples without which an object means nothing; other bytes may hold anything and go."""

    name = "bulk numbers"
    NUMERIC = frozenset({"OF", "OD", "OL", "OV"})
    NAMED = frozenset({
        0x00281201, 0x00281202, 0x00281203, 0x00281204,  # palettes
        0x00281221, 0x00281222, 0x00281223, 0x00281224,  # segmented palettes
        0x00283006,  # LUT Data
        0x54001010, 0x5400100A, 0x54000110, 0x54000112,  # Waveform Data, its padding, minimum and maximum
        0x00660023, 0x00660024, 0x00660025,  # indices of points, edges and vertices of surfaces
    })  # fmt: skip
    PROFILE, COLOUR_SPACE = 0x00282000, 0x00282002

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        is_number = place.vr in self.NUMERIC and place.written_vr == place.vr
        if place.tag == self.PROFILE:
            if place.hole is not Action.DUMMY:
                return Decision(place.hole, self.name, "its numbers may spell anything")
            return Decision(Action.ICC, self.name, "colours need one: sRGB's own takes its place")
        if place.tag == self.COLOUR_SPACE:
            return Decision(place.hole, self.name, "names the colour profile that was there")
        if place.tag not in self.NAMED and not is_number:
            return None
        if not place.type:
            return Decision(Action.REMOVE, self.name, "isn't part of such an object")
        if place.written_vr not in (*self.NUMERIC, "OW", "OB", "US", "SS"):
            return Decision(place.hole, self.name, "isn't of its representation")
        return Decision(Action.KEEP, self.name, "numbers that the object needs", "bulk numbers")

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        yield (
            "lookup tables, waveform samples, coordinates (OF, OD, OL, OV)",
            "kept if such an object has them, of the size that it says, and without words",
        )
        yield "(0028,2000), (0028,2002) ICCProfile", "sRGB's own where the IOD requires one, else removed"


class Codes:
    """Code values of public schemes that look as that scheme's codes do, with the scheme's own meaning."""

    name = "codes"
    VALUE, DESIGNATOR, VERSION, MEANING = 0x00080100, 0x00080102, 0x00080103, 0x00080104

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        if place.tag not in (self.VALUE, self.DESIGNATOR, self.VERSION, self.MEANING):
            return None
        if place.tag == self.VERSION:
            return Decision(place.hole if place.type == "1" else Action.REMOVE, self.name, "may be anything")
        why = "public codes stay, their meanings are the scheme's own"
        return Decision(Action.MEANING, self.name, why, "", Action.DUMMY)

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        yield "(0008,0100), (0008,0102)", "kept for codes of public schemes, else dummy"
        yield (
            "(0008,0104) CodeMeaning",
            "the scheme's own meaning of the code, else dummy; (0008,0103) removed",
        )


class TechnicalText:
    """Text about the device and how images are made, kept if it is nothing but that."""

    name = "technical text"
    ALLOWED = frozenset({
        0x00080070,  # Manufacturer
        0x00081090,  # Manufacturer's Model Name
        0x00180024,  # Sequence Name
        0x00180085,  # Imaged Nucleus
        0x00181020,  # Software Versions
        0x00181160,  # Filter Type
        0x00181210,  # Convolution Kernel
        0x00181250,  # Receive Coil Name
        0x00181251,  # Transmit Coil Name
        0x00189005,  # Pulse Sequence Name
        0x00209056,  # Stack ID
        0x00209421,  # Dimension Description Label
        0x00281054,  # Rescale Type
        0x00283004,  # Modality LUT Type
    })  # fmt: skip

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        if place.tag not in self.ALLOWED or place.written_vr not in ("LO", "SH", "CS"):
            return None
        why = "describes the device, if nothing else"
        return Decision(Action.KEEP, self.name, why, "words about a device", place.hole)

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        names = ", ".join(sorted(DicomDictionary[tag][4] for tag in self.ALLOWED))
        yield names, "kept if all words are makers', models', versions' or the Standard's own"


class Representation:
    """What is left, by value representation: numbers and codes that are what they claim stay, text goes."""

    name = "representation"
    ENUMERATED = frozenset({0x00080008, 0x00080060, 0x00180015, 0x00280004, 0x00089007})

    def decide(self, place: Place, profile: Profile) -> Decision | None:
        vr, written, hole = place.vr, place.written_vr, place.hole
        if not vr:
            return Decision(Action.REMOVE, self.name, "the Standard doesn't know it")
        if written != vr and not {vr, written} <= {"US", "SS"}:
            return Decision(hole, self.name, "is written with another representation than the Standard's")
        if vr == "SQ":
            return Decision(Action.DESCEND, self.name, "items are cleaned by the same rules")
        if vr == "UI":
            if Option.UIDS in profile.options:
                why = "UIDs stay, what isn't one or holds the patient's number is mapped"
                return Decision(Action.KEEP, self.name, why, "a UID", Action.UID)
            return Decision(Action.UID, self.name, "well-known UIDs stay, others are mapped")
        if vr in DATES and profile.dates != "remove":
            return Decision(Action.DATE, self.name, "a date, whether listed or not", "", hole)
        if vr in ("IS", "DS"):
            return Decision(Action.KEEP, self.name, "a number, if it is one", "a number", hole)
        if vr in BINARY:
            return Decision(Action.KEEP, self.name, "binary numbers", "binary numbers", hole)
        if vr == "AT":
            return Decision(Action.KEEP, self.name, "points to an attribute", "a tag of the Standard", hole)
        if vr == "CS":
            is_enumerated = place.tag in self.ENUMERATED or place.type in ("1", "1C")
            check = "an enumerated term" if is_enumerated else "a term"
            return Decision(Action.KEEP, self.name, "a code, if it is one of the Standard's", check, hole)
        return Decision(hole, self.name, f"unlisted {vr}: denied by default")

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        yield "attributes unknown to the Standard, or with another VR than the Standard's", "removed"
        yield (
            "UI",
            "well-known UIDs stay, others are mapped"
            if Option.UIDS not in profile.options
            else "kept if UIDs and not of the patient's numbers, else mapped",
        )
        yield "SQ", "items are cleaned by the same rules"
        if profile.dates != "remove":
            yield "DA, DT, TM", {"shift": "shifted", "year": "cut to the year", "keep": "kept"}[profile.dates]
        yield f"{', '.join(sorted(BINARY))}", "kept unless they spell or count the patient"
        yield "IS, DS", "kept if numbers, not dates, telephones or the patient's own"
        yield "CS", "kept if of the Standard's terms and not the patient's name"
        yield "AT", "kept if tags of the Standard"
        yield "all other representations (names, text, ages, bytes)", "removed"
        yield (
            "where the IOD requires a value (Type 1)",
            "a dummy; where it requires the attribute (Type 2): empty",
        )


RULES: tuple[Rule, ...] = (
    Directory(),
    Structure(),
    Private(),
    CurvesAndOverlays(),
    Patient(),
    Markers(),
    Chosen(),
    Table(),
    Pixels(),
    BulkNumbers(),
    Codes(),
    TechnicalText(),
    Representation(),
)
REMOVED = Decision(Action.REMOVE, "default", "no rule allows it")


def decide(place: Place, profile: Profile) -> Decision:
    """The decision of the first rule that has one; removal if none has."""
    found = (rule.decide(place, profile) for rule in RULES)
    return next((decision for decision in found if decision is not None), REMOVED)
