"""De-identifies one data set: who it is about, the walk through it, its pixels' margins, and what was done.

PS3.15 Annex E, Basic Application Level Confidentiality Profile with the options of a Profile. Values that
stay are passed through as bytes, the pixels above all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fedai_site.deidentify import directory, pixeldata, writing
from fedai_site.deidentify.dates import Dates
from fedai_site.deidentify.iod import Level, iod
from fedai_site.deidentify.known import bytes_of, encodings_of, gather, text_of
from fedai_site.deidentify.places import PATIENT_ID
from fedai_site.deidentify.profile import BASIC, Option, Profile
from fedai_site.deidentify.pseudonyms import Pseudonyms
from fedai_site.deidentify.reading import FAULTS
from fedai_site.deidentify.rules import RULES
from fedai_site.deidentify.safeprivate import declared_blocks
from fedai_site.deidentify.silence import silenced
from fedai_site.deidentify.table import load_table
from fedai_site.deidentify.walk import Names, Plan, Walk, encoding, is_well_known
from fedai_site.quarantine import Quarantine, Reason

IMPLEMENTATION_UID = UID("2.25.204364910482739520947103948572039485721")
PIXEL_DATA = pixeldata.PIXEL_DATA
ISSUER, STUDY, INSTANCE, SOP_CLASS = 0x00100021, 0x0020000D, 0x00080018, 0x00080016
TEMPORAL = {"remove": "REMOVED", "shift": "MODIFIED", "year": "MODIFIED", "keep": "UNMODIFIED"}
BURNED_IN, RECOGNIZABLE = 0x00280301, 0x00280302
ASCII = ("ascii",)
REMEMBERED = 1 << 12


@dataclass(frozen=True)
class Cleaned:
    """A clean data set, the pseudonym of its patient, how often each action was taken, and the names of key
    and profile.
    """

    dataset: Dataset
    patient: str
    actions: Counter[str]
    key_id: str
    profile: str


class Deidentifier:
    """Cleans data sets with the names and the profile of one site.

    The same input gives the same output, in whatever order files come.
    """

    def __init__(self, pseudonyms: Pseudonyms | bytes, profile: Profile = BASIC) -> None:
        self.pseudonyms = Pseudonyms(pseudonyms) if isinstance(pseudonyms, bytes) else pseudonyms
        self.profile = profile
        self._plan = Plan(profile)
        self._uid = lru_cache(maxsize=REMEMBERED)(self.pseudonyms.uid)

    def clean(self, dataset: Dataset) -> Cleaned:
        """A new data set that holds only what the rules allow.

        Raises Quarantine for one that can't be taken apart, or can't be looked into.
        """
        with silenced():
            try:
                return self._clean(dataset)
            except FAULTS as error:
                raise Quarantine(Reason.UNREADABLE, type(error).__name__) from None

    def _clean(self, dataset: Dataset) -> Cleaned:
        if not dataset:
            raise Quarantine(Reason.UNREADABLE, "nothing in it")
        syntax, sop_class = transfer_syntax(dataset), sop_class_of(dataset)
        pixeldata.check_kind(dataset, syntax, sop_class)
        is_directory = directory.is_directory(dataset, sop_class)
        walk = self._walk(dataset, is_directory)
        clean = walk.item(dataset, iod(sop_class))
        clean.preamble = bytes(128)
        clean.file_meta = self._file_meta(dataset, clean, syntax, sop_class)
        if not is_directory:
            self._mark(clean, walk, encoding(dataset))
            _mark_unseen(clean, dataset, iod(sop_class))
        walk.actions["comment in pixels"] += _clean_pixels(clean, dataset, syntax)
        if walk.has_unicode:
            clean.SpecificCharacterSet = "ISO_IR 192"
        if is_directory:
            directory.relink(clean, dataset)
        profile = f"{self.profile.name}/{load_table().edition}"
        return Cleaned(clean, walk.names.patient, +walk.actions, self.pseudonyms.key_id, profile)

    def _walk(self, dataset: Dataset, is_directory: bool) -> Walk:
        encodings = encodings_of(dataset, ())
        names = Names(
            patient=self._patient(dataset, encodings),
            patient_id=_text(dataset, PATIENT_ID, encodings),
            of_patient=self._patient,
            uid=self._uid,
            file_id=lambda part: self.pseudonyms.accession(part)[:8].upper(),
        )
        shifts = self.profile.dates == "shift"
        dates = Dates(self.profile.dates, self.pseudonyms.offset_days(names.patient) if shifts else 0)
        walk = Walk(self._plan, names, gather(dataset), dates, is_directory=is_directory)
        walk.blocks = declared_blocks(dataset)
        return walk

    def patient_of(self, original: Dataset) -> str:
        """The pseudonym that an original's patient has, or would have."""
        return self._patient(original, encodings_of(original, ()))

    def uid_of(self, uid: str) -> str:
        """What an original UID is in clean objects."""
        return uid if Option.UIDS in self.profile.options else self._mapped(uid)

    def _patient(self, item: Dataset, encodings: tuple[str, ...]) -> str:
        parts = [_text(item, tag, encodings) for tag in (PATIENT_ID, ISSUER, STUDY, INSTANCE)]
        instance = parts[3] or _fingerprint(item)
        return self.pseudonyms.patient(parts[0], parts[1], parts[2], instance)

    def number(self, dataset: Dataset) -> tuple[str, bool]:
        """The key of the PatientID by itself ('' if it names nobody), and whether an issuer is named."""
        encodings = encodings_of(dataset, ())
        issuer = _text(dataset, ISSUER, encodings).strip(" \0")
        return self.pseudonyms.number_key(_text(dataset, PATIENT_ID, encodings)), bool(issuer)

    def _file_meta(self, dataset: Dataset, clean: Dataset, syntax: UID, sop_class: str) -> FileMetaDataset:
        """The file meta, anew. It names class and instance unless the object itself never had any."""
        stated = getattr(dataset, "file_meta", Dataset())
        kind, instance = _text(clean, SOP_CLASS, ASCII), _text(clean, INSTANCE, ASCII)
        if not instance and (original := str(stated.get("MediaStorageSOPInstanceUID") or "")):
            instance = self._mapped(original)
        values = {
            0x00020002: kind or (self._mapped(sop_class) if sop_class else ""),
            0x00020003: instance,
            0x00020010: str(syntax),
            0x00020012: IMPLEMENTATION_UID,
        }
        elements = {BaseTag(tag): raw(tag, "UI", value) for tag, value in values.items() if value}
        return FileMetaDataset(elements | {BaseTag(0x00020013): raw(0x00020013, "SH", "FEDAI")})

    def _mapped(self, uid: str) -> str:
        return uid if is_well_known(uid) else self._uid(uid)

    def _mark(self, clean: Dataset, walk: Walk, encoded: tuple[bool, bool]) -> None:
        """Say what was done and no more (PS3.15 E.2, PS3.16 CID 7050), nothing about pixels."""
        options = " with options" if self.profile.options else ""
        method = f"fedai; PS3.15 {load_table().edition} Basic Profile{options}"
        clean[PATIENT_ID] = raw(PATIENT_ID, "LO", walk.names.patient, *encoded)
        clean[0x00120062] = raw(0x00120062, "CS", "YES", *encoded)
        clean[0x00120063] = raw(0x00120063, "LO", method, *encoded)
        codes = Sequence([_code(*pair, encoded) for pair in self.profile.codes()])
        clean[0x00120064] = DataElement(0x00120064, "SQ", codes)
        dates = "keep" if walk.has_dates else self.profile.dates
        clean[0x00280303] = raw(0x00280303, "CS", TEMPORAL[dates], *encoded)


def raw(tag: int, vr: str, text: str, implicit: bool = False, little: bool = True) -> RawDataElement:
    """An attribute with a value of ASCII text as it is stored."""
    value = text.encode("ascii")
    return RawDataElement(BaseTag(tag), vr, len(value), value, 0, implicit, little)


def _mark_unseen(clean: Dataset, original: Dataset, level: Level) -> None:
    """Say YES, there may be something to see, where the IOD requires a word and nobody has looked."""
    for tag in (BURNED_IN, RECOGNIZABLE):
        if tag in original and tag not in clean and level.type(tag) in ("1", "1C"):
            clean[tag] = raw(tag, "CS", "YES", *encoding(original))


def _code(value: str, meaning: str, encoded: tuple[bool, bool]) -> Dataset:
    texts = {0x00080100: ("SH", value), 0x00080102: ("SH", "DCM"), 0x00080104: ("LO", meaning)}
    code = Dataset({BaseTag(tag): raw(tag, *text, *encoded) for tag, text in texts.items()})
    code.set_original_encoding(*encoded, "utf8")
    return code


def _text(item: Dataset, tag: int, encodings: tuple[str, ...]) -> str:
    """A value as text; what can't be decoded byte for byte, so that different ones stay different."""
    if tag not in item:
        return ""
    element = item.get_item(tag)
    text = text_of(element, encodings)
    return bytes_of(element, True).decode("latin-1").rstrip(" \0") if "\ufffd" in text else text


def sop_class_of(dataset: Dataset) -> str:
    """The SOP Class, if need be as the file meta says."""
    stated = getattr(dataset, "file_meta", Dataset()).get("MediaStorageSOPClassUID")
    return _text(dataset, SOP_CLASS, ("ascii",)).strip(" \0") or str(stated or "")


def _fingerprint(item: Dataset) -> str:
    """Tells one object without any identifier from another."""
    digest = sha256()
    for tag, element in sorted(item.items(), key=lambda pair: int(pair[0])):
        value = element.value
        digest.update(f"{int(tag):08X}".encode())
        digest.update(value if isinstance(value, bytes) else str(value).encode("utf-8", "replace"))
    return digest.hexdigest()


def transfer_syntax(dataset: Dataset) -> UID:
    """The data set's transfer syntax: from its file meta, or as it was found to be encoded."""
    stated = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    implicit, little = encoding(dataset)
    if stated and not _is_wrong(UID(stated), implicit, little):
        return UID(stated)
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _is_wrong(stated: UID, implicit: bool, little: bool) -> bool:
    """Whether an uncompressed file isn't encoded as it says."""
    if stated not in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian):
        return False
    return (stated.is_implicit_VR, stated.is_little_endian) != (implicit, little)


def _clean_pixels(clean: Dataset, original: Dataset, syntax: UID) -> int:
    """Take out what hides beside the picture. Returns the number of overwritten comments."""
    count = 0
    if syntax.is_compressed:
        value, count = pixeldata.clean_compressed(clean, original, syntax)
        changed = {PIXEL_DATA: value} if value is not None else {}
    else:
        changed = pixeldata.clean_native(clean, original, encoding(original)[1])
    for tag, value in changed.items():
        element = clean.get_item(tag)
        if isinstance(element, RawDataElement):
            clean[tag] = element._replace(value=value)
        else:  # somebody has read it before
            clean[tag] = DataElement(tag, element.VR, value)
            clean[tag].is_undefined_length = syntax.is_encapsulated
    return count


def write(cleaned: Cleaned) -> bytes:
    """The clean data set as a DICOM file (PS3.10). Raises Quarantine if it can't be encoded."""
    with silenced():
        try:
            return writing.file_bytes(cleaned.dataset)
        except FAULTS as error:
            raise Quarantine(Reason.UNREADABLE, type(error).__name__) from None


def describe(profile: Profile = BASIC) -> list[str]:
    """All rules in their order, one line each or more."""
    return [f"{what}: {action}" for rule in RULES for what, action in rule.describe(profile)]


__all__ = ["FAULTS", "Cleaned", "Deidentifier", "bytes_of", "describe", "transfer_syntax", "write"]
