"""Places that take thought: after the end of a value, in numbers, in what no dictionary knows."""

from __future__ import annotations

from struct import calcsize, unpack

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from benchmarks.deidentification.identities import SCRIPTS, native, word
from benchmarks.deidentification.plants import Hand
from benchmarks.deidentification.standard import pool

TAILS = (
    (0x00180060, "DS", "120"), (0x00185100, "CS", "HFS"), (0x00200062, "CS", "L"), (0x00180022, "CS", "SFOV"),
    (0x00201002, "IS", "12"), (0x00181151, "IS", "200"), (0x00180050, "DS", "1.5"), (0x00209241, "CS", "A"),
    (0x00081160, "IS", "1"), (0x00080008, "CS", "ORIGINAL\\PRIMARY"), (0x00281055, "LO", "LUNG"),
    (0x00281056, "CS", "LINEAR"), (0x00180080, "DS", "12.5"), (0x00540081, "IS", "3"),
)  # fmt: skip
SPELLED = (("FD", "d"), ("FL", "f"), ("UL", "I"), ("SL", "i"), ("SS", "h"), ("US", "H"))


def tails(item: Dataset, hand: Hand) -> None:
    """After what a value should be: behind a NUL, as a second value, behind blanks."""
    for tag, vr, begin in hand.random.sample(TAILS, 5):
        if tag not in item:
            middle = hand.random.choice(("\\", "\0", "  "))
            token = hand.note(
                hand.word("CS"), f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {vr} after its value", "tail"
            )
            item[tag] = DataElement(tag, "LO", f"{begin}{middle}{token}")
            item[tag].VR = vr
            item[tag]._value = f"{begin}{middle}{token}"  # pydicom would refuse it


def spelled(item: Dataset, hand: Hand) -> None:
    """Words as the bytes of numbers, and numbers that are the patient's, in group lengths too."""
    for vr, form in hand.random.sample(SPELLED, 3):
        tag = hand.random.choice(pool(False)[vr])
        if tag in item:
            continue
        raw = hand.note(
            word(hand.random, 4), f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {vr} as bytes", "spelled"
        ).encode()
        raw += b" " * (-len(raw) % 8)
        item[tag] = DataElement(tag, vr, list(unpack(f"<{len(raw) // calcsize(form)}{form}", raw)))
    group = hand.random.choice((0x00080000, 0x00100000, 0x00200000))
    item.add_new(group, "UL", int(hand.note(hand.person.number, _name(group), "spelled", "number")))


def unknown(item: Dataset, hand: Hand) -> None:
    """Attributes of even groups that no dictionary knows; repeating groups and pixels inside items."""
    for tag, vr in ((0x00100077, "LO"), (0x00181999, "SH"), (0x0028F0F0, "UT")):
        hand.put(item, tag, vr, "unknown attribute")
    inner, where = hand.nest(item, [hand.random.choice(pool(False)["SQ"])])
    for tag, vr in (
        (0x60004000, "LT"),
        (0x60003000, "OW"),
        (0x50003000, "OW"),
        (0x7FE00010, "OW"),
        (0x0010F077, "PN"),
    ):
        hand.put(inner, tag, vr, "unknown attribute", where)


def other_character_set(item: Dataset, hand: Hand) -> None:
    """An item with a character set of its own, and a name in it."""
    inner = Dataset()
    inner.SpecificCharacterSet = "ISO_IR 192"
    script = hand.random.choice(SCRIPTS[2:])
    for tag, vr in ((0x00100010, "PN"), (0x00204000, "LT"), (0x00400280, "ST")):
        where = f"{_name(tag)} in an item of its own character set"
        token = hand.note(native(hand.random, script), where, "nested")
        inner[tag] = DataElement(tag, vr, token)
    tag = hand.random.choice([tag for tag in pool(False)["SQ"] if tag not in item])
    item[tag] = DataElement(tag, "SQ", Sequence([inner]))


def profile(item: Dataset, hand: Hand) -> None:
    """An ICC profile whose description names somebody; it looks like one otherwise."""
    token = hand.note(word(hand.random, 4), "(0028,2000) ICC profile", "profile").encode()
    text = b"desc\0\0\0\0" + (len(token) + 1).to_bytes(4, "big") + token + b"\0"
    tags = (1).to_bytes(4, "big") + b"desc" + (144).to_bytes(4, "big") + len(text).to_bytes(4, "big")
    body = b"\0" * 8 + b"\x02\x40\0\0mntrRGB XYZ " + b"\0" * 12 + b"acsp" + b"\0" * 88 + tags + text
    raw = (len(body) + 4).to_bytes(4, "big") + body
    item.add_new(0x00282000, "OB", raw + b"\0" * (len(raw) % 2))


def documents(item: Dataset, hand: Hand) -> None:
    """Encapsulated documents, and offset tables that hold words instead of offsets."""
    if str(item.SOPClassUID).startswith("1.2.840.10008.5.1.4.1.1.104"):
        text = hand.note(word(hand.random, 4), "(0042,0011) encapsulated document", "document")
        item.add_new(0x00420011, "OB", f"%PDF-1.4 {text} %%EOF".encode().ljust(64))
    if (
        item.file_meta.get("TransferSyntaxUID", "").startswith("1.2.840.10008.1.2.4")
        and hand.random.random() < 0.5
    ):
        item.add_new(
            0x7FE00001, "OV", hand.note(word(hand.random, 5), "(7FE0,0001)", "codestream").encode().ljust(24)
        )


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
