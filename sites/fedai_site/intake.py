"""The door in: finds files, opens DICOM objects, refuses what isn't a usable image, and turns pixels into
arrays.

Beside deidentify/ the only module that opens patient files. Nothing in here is written anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID, UID_dictionary

from fedai_site import decoding
from fedai_site.deidentify import reading
from fedai_site.deidentify.drawn import kind_of
from fedai_site.deidentify.engine import Deidentifier, transfer_syntax
from fedai_site.deidentify.profile import BASIC
from fedai_site.deidentify.pseudonyms import Pseudonyms
from fedai_site.deidentify.reading import FAULTS, MAXIMUM_BYTES
from fedai_site.deidentify.silence import silenced
from fedai_site.quarantine import Quarantine, Reason
from fedai_site.traits import CONSTANT, Traits, digest, look_of, read_traits

PIXEL_ELEMENTS = {
    0x7FE00010: 0,
    0x7FE00008: 4,
    0x7FE00009: 8,
}  # tag -> bytes of a float pixel, 0: by BitsAllocated
LABEL_KEYS = ("PatientID", "AccessionNumber", "SOPInstanceUID")
PROJECTIONS = frozenset({"CR", "DX", "MG", "RG", "RF", "XA", "IO", "PX"})
COARSE = 128  # rows or columns are enough to see how an image looks
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Opened:
    """A usable image object and the SHA-256 of the file that it came from."""

    dataset: Dataset
    sha256: str


def find(folder: Path) -> list[Path]:
    """All regular files under a folder, sorted; links are not followed. Raises FileNotFoundError."""
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def read(path: Path) -> Dataset:
    """The data set of a usable image. Raises Quarantine (a DataError with `reason`) for anything else."""
    return open_object(path).dataset


def open_object(path: Path) -> Opened:
    """Read, parse and check a file. Raises Quarantine."""
    data = _bytes(path)
    with silenced():
        try:
            dataset = reading.read(data)
            _check(dataset, data)
        except FAULTS as error:
            raise Quarantine(Reason.UNREADABLE, type(error).__name__) from None
    return Opened(dataset, sha256(data).hexdigest())


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise Quarantine(Reason.TOO_LARGE)
        return path.read_bytes()
    except OSError as error:
        raise Quarantine(Reason.UNREADABLE, error.strerror or "input/output error") from None


def check(dataset: Dataset, data: bytes) -> None:
    """Raises Quarantine for an original data set (parsed from `data`) that is no usable image."""
    with silenced():
        try:
            _check(dataset, data)
        except FAULTS as error:
            raise Quarantine(Reason.UNREADABLE, type(error).__name__) from None


def look(names: Pseudonyms, original: Dataset, data: bytes) -> dict[str, str]:
    """Refuse what isn't a usable image; else its modality, what cohorts are chosen by, and the keyed hashes
    that labels find it by. What outlines structures on other images is none (see masks.py).
    """
    if kind := kind_of(original):
        _check_outlines(original, data, kind)
        raise Quarantine(Reason.SEGMENTATION)
    check(original, data)
    keys = {name: names.label_key(name, text(original, name)) for name in LABEL_KEYS}
    return {"modality": modality(original), **keys, **_traits(names, original).told()}


def _check_outlines(original: Dataset, data: bytes, kind: str) -> None:
    """Raises Quarantine for outlines that can't be read; compressed ones are decoded in the child first."""
    try:
        is_compressed = kind == "SEG" and transfer_syntax(original).is_compressed
    except FAULTS as error:
        raise Quarantine(Reason.UNREADABLE, type(error).__name__) from None
    if is_compressed and not decoding.decodes(data, stored=True):
        raise Quarantine(Reason.UNDECODABLE)


def _traits(names: Pseudonyms, original: Dataset) -> Traits:
    """Raises Quarantine for pixels that training couldn't see as a picture."""
    with silenced():
        try:
            stored = pixel_array(original, index=frames(original) // 2)
            step = max(1, min(stored.shape[:2]) // COARSE)
            seen = _to_image(original, stored[::step, ::step])
            looks = look_of(seen)
        except FAULTS as error:
            raise Quarantine(Reason.UNDECODABLE, type(error).__name__) from None
        image = names.label_key("pixels", digest(stored)) if looks != CONSTANT else ""
    seen_as = max(stored.shape[:2]), float(np.median(seen))
    return read_traits(partial(text, original), partial(text, _measures(original)), image, looks, *seen_as)


def _measures(original: Dataset) -> Dataset:
    """Where the pixel measures are: in an enhanced object's shared functional groups, else in the object."""
    place = original
    for name in ("SharedFunctionalGroupsSequence", "PixelMeasuresSequence"):
        items = place.get(name)
        if not items:
            return original
        place = items[0]
    return place


def names_of(names: Pseudonyms, original: Dataset) -> frozenset[str]:
    """What the patient of an original is known by here: the pseudonym and the keyed PatientID."""
    key = names.label_key("PatientID", text(original, "PatientID"))
    return frozenset({Deidentifier(names, BASIC).patient_of(original), key}) - {""}


def _check(dataset: Dataset, data: bytes) -> None:
    reading.check_complete(dataset)
    _check_kind(dataset, data)
    if not dataset.get("SOPInstanceUID"):
        raise Quarantine(Reason.NO_IDENTITY)
    _check_pixels(dataset, data)


def _check_kind(dataset: Dataset, data: bytes) -> None:
    sop_class = str(dataset.get("SOPClassUID", ""))
    if 0x00041220 in dataset or 0x00041130 in dataset:
        raise Quarantine(Reason.DICOMDIR)
    if 0x00420011 in dataset or sop_class.startswith("1.2.840.10008.5.1.4.1.1.104."):
        raise Quarantine(Reason.ENCAPSULATED_DOCUMENT)
    if sop_class.startswith("1.2.840.10008.5.1.4.1.1.88."):
        raise Quarantine(Reason.STRUCTURED_REPORT)
    if not any(tag in dataset for tag in PIXEL_ELEMENTS):
        if not sop_class:
            raise Quarantine(Reason.UNREADABLE, "it doesn't say what it is, and has no pixels")
        raise Quarantine(
            Reason.TRUNCATED if b"\xe0\x7f\x10\0" in data[-len(data) // 2 :] else Reason.NO_PIXELS
        )
    if UID_dictionary.get(sop_class, ("", ""))[1] != "SOP Class":
        raise Quarantine(Reason.UNKNOWN_SOP_CLASS)


def _check_pixels(dataset: Dataset, data: bytes) -> None:
    syntax = transfer_syntax(dataset)
    if syntax.is_private or syntax not in UID_dictionary:
        raise Quarantine(Reason.UNSUPPORTED_SYNTAX)
    if _has_overlay_in_pixels(dataset):
        raise Quarantine(Reason.OVERLAY_IN_PIXELS)
    tag = next(tag for tag in PIXEL_ELEMENTS if tag in dataset)
    expected = _expected_bytes(dataset, tag)
    if not syntax.is_compressed:
        _check_size(dataset, tag, expected)
    _check_decodes(dataset, syntax, data)


def _has_overlay_in_pixels(dataset: Dataset) -> bool:
    groups = range(0x6000, 0x6100, 2)
    return any(group << 16 | 0x0102 in dataset and group << 16 | 0x3000 not in dataset for group in groups)


def _expected_bytes(dataset: Dataset, tag: int) -> int:
    try:
        if PIXEL_ELEMENTS[tag]:
            expected = int(dataset.Rows) * int(dataset.Columns) * frames(dataset) * PIXEL_ELEMENTS[tag]
        else:
            expected = get_expected_length(dataset)
    except FAULTS:
        raise Quarantine(Reason.PIXEL_SIZE, "rows, columns or bits are missing") from None
    if expected <= 0:
        raise Quarantine(Reason.PIXEL_SIZE)
    if expected > MAXIMUM_BYTES:
        raise Quarantine(Reason.TOO_LARGE)
    return expected


def _check_size(dataset: Dataset, tag: int, expected: int) -> None:
    """Native pixels fill their element; zeros after them are padding and are cut off, anything else is a
    wrong size.
    """
    value = dataset[tag].value or b""
    if len(value) < expected or value[expected + expected % 2 :].strip(b"\0"):
        raise Quarantine(Reason.PIXEL_SIZE)
    if len(value) > expected + expected % 2:
        dataset[tag].value = value[:expected] + bytes(expected % 2)


def _check_decodes(dataset: Dataset, syntax: UID, data: bytes) -> None:
    """Native pixels are decoded here, compressed ones in a child process that may fail without harm."""
    try:
        pydicom.pixels.get_decoder(syntax)
    except NotImplementedError:
        raise Quarantine(Reason.UNSUPPORTED_SYNTAX) from None
    if not syntax.is_compressed:
        _decode_frame(dataset)
    elif not decoding.decodes(data):
        raise Quarantine(Reason.UNDECODABLE)


def _decode_frame(dataset: Dataset) -> None:
    try:
        pixel_array(dataset, index=frames(dataset) // 2)
    except FAULTS as error:
        raise Quarantine(Reason.UNDECODABLE, type(error).__name__) from None


def text(dataset: Dataset, name: str) -> str:
    """An attribute of the original data set as text, '' if it isn't there."""
    with silenced():
        return str(dataset.get(name) or "")


def modality(dataset: Dataset) -> str:
    """The original's Modality if it is a code (PS3.3 C.7.3.1.1.1), else ''."""
    found = text(dataset, "Modality").strip()
    return found if found.isalnum() and found.isascii() and len(found) <= 16 else ""


def frames(dataset: Dataset) -> int:
    """How many frames an object has: NumberOfFrames, or one."""
    return int(dataset.get("NumberOfFrames") or 1)


def pixels(path: Path) -> NDArray[np.float32]:
    """The image as float32 [rows, columns], bright meaning much signal; of several frames the middle one.

    Modality LUT or rescale is applied; a VOI LUT or window only to projection radiographs, where it is part
    of how the detector's values are to be seen (elsewhere windows differ from one reader to the next).
    MONOCHROME1 is inverted, colour becomes luminance (ITU-R BT.601), padding takes the lowest value of the
    rest. Raises Quarantine.
    """
    return decode(_bytes(path))


def decode(data: bytes) -> NDArray[np.float32]:
    """As `pixels`, from the bytes of a file."""
    with silenced():
        try:
            dataset = pydicom.dcmread(BytesIO(data))
            stored = pixel_array(dataset, index=frames(dataset) // 2)
            return _to_image(dataset, stored)
        except FAULTS as error:
            raise Quarantine(Reason.UNDECODABLE, type(error).__name__) from None


def _to_image(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.float32]:
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return np.asarray(stored[..., :3].astype(np.float32) @ LUMINANCE)
    image = _values(dataset, stored)
    image = _fill_padding(dataset, stored, image)
    return (
        np.max(image) + np.min(image) - image if dataset.PhotometricInterpretation == "MONOCHROME1" else image
    )


def _values(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.float32]:
    values = apply_modality_lut(stored, dataset)
    if dataset.get("Modality") in PROJECTIONS:
        seen = _windowed(values, dataset)
        values = seen if np.ptp(seen) > 0 else values
    return np.asarray(values, dtype=np.float32)


def _windowed(values: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """A window that PS3.3 C.11.2.1.2 doesn't allow, such as one of width 0, is none."""
    try:
        return np.asarray(apply_voi_lut(values, dataset))
    except FAULTS:
        return values


def _fill_padding(dataset: Dataset, stored: NDArray[Any], image: NDArray[np.float32]) -> NDArray[np.float32]:
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return image
    last = dataset.get("PixelPaddingRangeLimit", first)
    is_padding = (stored >= min(first, last)) & (stored <= max(first, last))
    return image if is_padding.all() else np.where(is_padding, image[~is_padding].min(), image)
