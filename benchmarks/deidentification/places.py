"""Where identifiers hide: one function for each kind of place, called on every object of the corpus."""

from __future__ import annotations

from datetime import timedelta
from io import BytesIO

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from benchmarks.deidentification.hidden_places import (
    documents,
    other_character_set,
    profile,
    spelled,
    tails,
    unknown,
)
from benchmarks.deidentification.identities import word
from benchmarks.deidentification.objects import code
from benchmarks.deidentification.plants import Hand
from benchmarks.deidentification.standard import pool

LISTED_VRS = ("LO", "SH", "PN", "ST", "LT", "UT", "DA", "TM", "DT", "UI", "CS", "AE", "UC", "OB", "DS")
UNLISTED_VRS = (
    "LO", "LO", "SH", "SH", "ST", "LT", "UT", "UC", "PN", "UR", "CS", "CS", "IS", "DS", "DA", "DT", "TM",
    "UI", "OB", "OW", "UL", "FD", "AT", "US",
)  # fmt: skip
CREATORS = (
    ("SIEMENS CSA HEADER", 0x0029, 0x10, "OB"), ("GEMS_IDEN_01", 0x0009, 0x17, "LT"),
    ("Philips Imaging DD 001", 0x2001, 0x20, "LO"), ("SIEMENS MED SP DXMG WH AWS 1", 0x0041, 0x02, "SH"),
    ("GEMS_IDEN_01", 0x0009, 0x02, "SH"), ("TOSHIBA_MEC_CT3", 0x7005, 0x05, "SH"),
    ("HOLOGIC, Inc.", 0x0019, 0x08, "LO"), ("Philips PET Private Group", 0x7053, 0x00, "DS"),
    ("SIEMENS MR HEADER", 0x0019, 0x0C, "IS"), ("ELSCINT1", 0x00E1, 0x21, "DS"), ("GEMS_ACQU_01", 0x0019,
    0x05, "LT"),
)  # fmt: skip
TECHNICAL = (
    0x00080070, 0x00081090, 0x00181020, 0x00181000, 0x00081010, 0x00181030, 0x00180024, 0x00181210,
    0x00181250,
    0x00209158, 0x00089123, 0x00181160, 0x00400254,
)  # fmt: skip
GRAPHIC = (0x00700001, 0x00700008)


def patient(item: Dataset, hand: Hand) -> None:
    """The patient module: names in each component group, numbers, birth, address; the study's own numbers."""
    someone = hand.person
    family, given = (hand.note(word, "(0010,0010) PN", "name") for word in (someone.family, someone.given))
    name = f"{family}^{given}"
    if someone.script.letters not in ("", "accents", "cyrillic"):
        native = (
            f"{hand.note(someone.native_family, '(0010,0010) PN ideographic', 'name')}^{someone.native_given}"
        )
        name += f"={native}={hand.note(someone.phonetic, '(0010,0010) PN phonetic', 'name')}"
    elif someone.script.letters:
        name = f"{hand.note(someone.native_family, '(0010,0010) PN', 'name')}^{name.replace('^', ' ')}"
    item.PatientName = name
    item.PatientID = hand.note(someone.number, "(0010,0020) LO", "number in text")
    item.PatientBirthDate = hand.note(f"{someone.birth:%Y%m%d}", "(0010,0030) DA", "date")
    item.PatientTelephoneNumbers = hand.note(someone.phone, "(0010,2154) SH", "number in text")
    item.OtherPatientIDs = hand.note(someone.resident, "(0010,1000) LO", "number in text")
    item.PatientSex, item.PatientAge = "F", "067Y"
    item.StudyDate = hand.note(f"{hand.day:%Y%m%d}", "(0008,0020) DA", "date")
    item.StudyTime = hand.time("TM", "(0008,0030) TM", "time")
    for tag, vr in (
        (0x00080050, "SH"),
        (0x00080090, "PN"),
        (0x00101040, "LO"),
        (0x00081030, "LO"),
        (0x00080080, "LO"),
    ):
        hand.put(item, tag, vr, "listed")


def listed(item: Dataset, hand: Hand) -> None:
    for vr in hand.random.sample(LISTED_VRS, 12):
        hand.put(item, hand.random.choice(pool(True)[vr]), vr, "listed")


def unlisted(item: Dataset, hand: Hand) -> None:
    for vr in hand.random.sample(UNLISTED_VRS, 14):
        hand.put(item, hand.random.choice(pool(False)[vr]), vr, "unlisted")


def nested(item: Dataset, hand: Hand) -> None:
    """In sequences that are listed, or not, down to a depth of six; the patient's own name among them."""
    for depth in (1, 1, 2, 3, 4, 6):
        path = [hand.random.choice(pool(hand.random.random() < 0.3)["SQ"]) for _ in range(depth)]
        inner, where = hand.nest(item, path)
        for vr in hand.random.sample(UNLISTED_VRS, 2):
            is_listed = hand.random.random() < 0.4 and vr in pool(True)
            hand.put(inner, hand.random.choice(pool(is_listed)[vr]), vr, "nested", where)
    inner, where = hand.nest(item, [hand.random.choice(pool(False)["SQ"]), 0x00081140])
    if "PatientName" not in inner:
        inner.PatientName = hand.person.family
        hand.note(hand.person.family, f"{where}(0010,0010) PN", "nested")


def private(item: Dataset, hand: Hand) -> None:
    """Under creators that are known, unknown, missing, or that hold the identifier themselves; nested."""
    creator, group, low, vr = hand.random.choice(CREATORS)
    block = item.private_block(group, creator, create=True)
    if low not in block:
        block.add_new(low, vr, hand.value(vr, f"({group:04X},xx{low:02X}) {creator}", "private"))
    block = item.private_block(
        0x0019, hand.note(word(hand.random), "(0019,00xx) creator", "private"), create=True
    )
    for low, vr in enumerate(hand.random.sample(("LO", "UN", "DS", "DA", "PN", "UI", "OB"), 3), 1):
        block.add_new(low, vr, hand.value(vr, f"(0019,xx{low:02X}) {vr} unknown creator", "private"))
    item.add_new(0x00111007, "LO", hand.value("LO", "(0011,1007) LO without creator", "private"))
    inner = Dataset()
    inner.private_block(0x0021, "ACME 1.0", create=True).add_new(
        1, "LT", hand.value("LT", "(0021,xx01)/ LT", "private")
    )
    item.private_block(0x0023, "ACME 1.0", create=True).add_new(1, "SQ", Sequence([inner]))
    where, place = hand.nest(item, [hand.random.choice(pool(False)["SQ"])])[::-1]
    place.private_block(0x0025, "ACME 1.0", create=True).add_new(
        2, "SH", hand.value("SH", f"{where}(0025,xx02)", "private")
    )


def unknown_representation(item: Dataset, hand: Hand) -> None:
    """A sequence written as UN with implicit VR inside (PS3.5 6.2.2), private and public; a name as UN."""
    inner = Dataset()
    inner.PatientName = hand.note(word(hand.random), "(0029,xx20)/(0010,0010) in UN", "UN")
    inner.PatientComments = hand.note(word(hand.random), "(0029,xx20)/(0010,4000) in UN", "UN")
    raw = _items(inner)
    item.private_block(0x0029, "ACME 2.0", create=True).add_new(0x20, "UN", raw)
    tag = hand.random.choice([tag for tag in pool(False)["SQ"] if tag not in item])
    item[tag] = _as_un(tag, raw)
    tag = hand.random.choice([tag for tag in pool(False)["LO"] if tag not in item])
    where = f"({tag >> 16:04X},{tag & 0xFFFF:04X}) LO as UN"
    item[tag] = _as_un(tag, hand.note(word(hand.random, 4), where, "UN").encode())


def _as_un(tag: int, raw: bytes) -> DataElement:
    """pydicom puts the known representation in the place of UN when an element is made; here it stays UN."""
    element = DataElement(tag, "OB", raw + b" " * (len(raw) % 2))
    element.VR = "UN"
    return element


def _items(item: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, item)
    raw = buffer.getvalue()
    return b"\xfe\xff\x00\xe0" + len(raw).to_bytes(4, "little") + raw


def uids(item: Dataset, hand: Hand) -> None:
    """In attributes of other objects, of unlisted ones, and of the equipment."""
    for tag in (0x00200052, 0x00081195, 0x0040A124, 0x00880140):
        hand.put(item, tag, "UI", "uid")
    inner, where = hand.nest(item, [0x0008114A])
    hand.put(inner, 0x00081155, "UI", "uid", where)
    inner.ReferencedSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")


def overlays_and_curves(item: Dataset, hand: Hand) -> None:
    """Text and bits of overlay planes, curves, also in the second group of each."""
    group = hand.random.choice((0x6000, 0x6002, 0x601E)) << 16
    item.add_new(group | 0x0010, "US", 16)
    item.add_new(group | 0x0011, "US", 16)
    item.add_new(group | 0x0040, "CS", "G")
    item.add_new(group | 0x0050, "SS", [1, 1])
    item.add_new(group | 0x0100, "US", 1)
    item.add_new(group | 0x0102, "US", 0)
    for low, vr in ((0x0022, "LO"), (0x1500, "LO"), (0x4000, "LT"), (0x3000, "OW")):
        item.add_new(group | low, vr, hand.value(vr, f"(60xx,{low:04X})", "overlay"))
    curve = hand.random.choice((0x5000, 0x5004)) << 16
    item.add_new(curve | 0x0022, "LO", hand.value("LO", "(50xx,0022)", "curve"))
    item.add_new(curve | 0x3000, "OW", hand.value("OW", "(50xx,3000)", "curve"))


def high_bits(item: Dataset, hand: Hand) -> None:
    """An overlay in the unused bits of the pixels (PS3.5 8.1.1, retired): the mask spells the token."""
    bits = (item.get("BitsStored"), item.get("BitsAllocated"), "PixelData" in item)
    if bits != (12, 16, True) or hand.random.random() < 0.7:
        return
    pixels = np.frombuffer(item.PixelData, np.uint16).copy()
    raw = np.frombuffer(word(hand.random, 5).encode() * 8, np.uint8)
    plane = np.unpackbits(raw)[: len(pixels)].astype(np.uint16)
    pixels[: len(plane)] |= plane << 13
    item.PixelData = pixels.tobytes()
    item.add_new(0x60080010, "US", int(item.Rows))
    item.add_new(0x60080011, "US", int(item.Columns))
    item.add_new(0x60080100, "US", 16)
    item.add_new(0x60080102, "US", 13)
    hand.note("overlay in bit 13", "(7FE0,0010) high bits", "high bits", "bits")


def icon(item: Dataset, hand: Hand) -> None:
    inner, where = hand.nest(item, [0x00880200])
    inner.Rows = inner.Columns = 4
    inner.BitsAllocated = inner.BitsStored = 8
    inner.HighBit, inner.SamplesPerPixel, inner.PixelRepresentation = 7, 1, 0
    inner.PhotometricInterpretation = "MONOCHROME2"
    if "PixelData" not in inner:
        inner.add_new(
            0x7FE00010,
            "OB",
            hand.note(word(hand.random, 5), f"{where}(7FE0,0010)", "icon").encode().ljust(16),
        )


def waveform(item: Dataset, hand: Hand) -> None:
    inner, where = hand.nest(item, [0x0040B020])
    hand.put(inner, 0x00700006, "ST", "waveform annotation", where)
    inner, where = hand.nest(item, [0x54000100, 0x003A0200])
    hand.put(inner, 0x003A0203, "SH", "waveform annotation", where)


def codes(item: Dataset, hand: Hand) -> None:
    """In every part of a code: value, scheme, version, meaning; in a public code's meaning."""
    tag = hand.random.choice((0x00081032, 0x00082218, 0x0040A168, 0x00540220))
    inner, where = hand.nest(item, [tag])
    for low, vr in (
        (0x0100, "SH"),
        (0x0102, "SH"),
        (0x0103, "SH"),
        (0x0104, "LO"),
        (0x0119, "UC"),
        (0x0120, "UR"),
    ):
        if hand.random.random() < 0.6:
            hand.put(inner, 0x00080000 | low, vr, "code", where)
    public = code(
        "51185008", "SCT", hand.note(hand.word("LO"), f"{where}(0008,0104) of a public code", "code")
    )
    item[tag].value.append(public)


def technical(item: Dataset, hand: Hand) -> None:
    """A name in what is meant for the device: software, serial, protocol, kernel, frame comments."""
    for tag in hand.random.sample(TECHNICAL, 4):
        if tag in item:
            del item[tag]
        hand.put(
            item,
            tag,
            "LT" if tag == 0x00209158 else "SH" if tag & 0xFFFF in (0x1250, 0x1210) else "LO",
            "technical",
        )
    if "SoftwareVersions" not in item:
        token = hand.note(word(hand.random), "(0018,1020) LO second value", "technical")
        item.SoftwareVersions = ["syngo CT 2012B", token]
    patient_in = hand.random.choice((0x00185104, 0x00180015, 0x00185101, 0x00180022, 0x00181150))
    item[patient_in] = DataElement(
        patient_in, "CS" if patient_in in (0x00180015, 0x00185101) else "LO", hand.person.family.upper()[:16]
    )
    hand.note(hand.person.family.upper()[:16], f"({patient_in:08X}) the patient's name", "technical")


def sort_of_object(item: Dataset, hand: Hand) -> None:
    """In what only this kind of object has: ROI names, plan labels, report text, presentation labels."""
    for region in item.get("StructureSetROISequence", []):
        region.ROIName = hand.note(hand.word("LO"), "(3006,0020)/(3006,0026)", "kind of object")
        region.ROIDescription = hand.value("ST", "(3006,0020)/(3006,0028)", "kind of object")
    for beam in item.get("BeamSequence", []):
        beam.BeamName = hand.value("LO", "(300A,00B0)/(300A,00C2)", "kind of object")
    for content in item.get("ContentSequence", []):
        content.TextValue = hand.value("UT", "(0040,A730)/(0040,A160)", "kind of object")
        content.PersonName = hand.value("PN", "(0040,A730)/(0040,A123)", "kind of object")
    if item.get("PresentationLUTShape") and item.get("ContentLabel"):
        inner, where = hand.nest(item, list(GRAPHIC))
        hand.put(inner, 0x00700006, "ST", "kind of object", where)


def lookup_table(item: Dataset, hand: Hand) -> None:
    """Bytes of a palette that an image without palette colour has no use for."""
    if item.get("PhotometricInterpretation", "") != "PALETTE COLOR" and hand.random.random() < 0.3:
        hand.put(item, 0x00281201, "OW", "lookup table")


def header(item: Dataset, hand: Hand) -> None:
    """File meta: application entities, version name, addresses, private information."""
    meta = item.file_meta
    meta.SourceApplicationEntityTitle = hand.note(hand.word("AE"), "(0002,0016)", "file meta")
    meta.SendingApplicationEntityTitle = hand.note(hand.word("AE"), "(0002,0017)", "file meta")
    meta.ImplementationVersionName = hand.note(word(hand.random)[:16], "(0002,0013)", "file meta")
    meta.ImplementationClassUID = hand.note(hand.uid(), "(0002,0012)", "file meta")
    meta.PrivateInformationCreatorUID = hand.note(hand.uid(), "(0002,0100)", "file meta")
    meta.PrivateInformation = hand.note(word(hand.random, 5), "(0002,0102)", "file meta").encode().ljust(32)


def trailer(item: Dataset, hand: Hand) -> None:
    if hand.random.random() < 0.5:
        item.add_new(
            0xFFFCFFFC, "OB", hand.note(word(hand.random, 4), "(FFFC,FFFC)", "trailer").encode().ljust(24)
        )
    has_frames = "PixelData" in item and not item.file_meta.TransferSyntaxUID.is_compressed
    if has_frames and hand.random.random() < 0.05:
        item.PixelData += (
            hand.note(word(hand.random, 4), "(7FE0,0010) after the last frame", "trailer").encode().ljust(24)
        )


def dates(item: Dataset, hand: Hand) -> None:
    """Two dates whose interval is known (acquisition three days after the study); one in a text."""
    item.AcquisitionDate = f"{hand.day + timedelta(days=3):%Y%m%d}"
    hand.note(item.AcquisitionDate, "(0008,0022) DA", "date")
    item.AcquisitionTime = hand.time("TM", "(0008,0032) TM", "time")
    for tag, vr in ((0x0008002A, "DT"), (0x00400244, "DA"), (0x00400245, "TM"), (0x00181012, "DA")):
        hand.put(item, tag, vr, "date")
    item.SeriesDescription = f"chest {hand.note(f'{hand.day:%d.%m.%Y}', '(0008,103E) LO', 'date')} late"


PLACES = (
    patient, listed, unlisted, nested, private, uids, overlays_and_curves, high_bits, icon,
    waveform, codes, technical, sort_of_object, lookup_table, dates, tails, spelled, unknown,
    other_character_set,
    profile, documents, unknown_representation, header, trailer,
)  # fmt: skip


def encode(item: Dataset) -> bytes:
    buffer = BytesIO()
    item.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
