"""What may hide in pixel data beside the picture: bytes after it, overlays in unused bits, comments, video.

PS3.5 8 (native and encapsulated), PS3.3 C.9.2 (overlay planes).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, UID_dictionary

from fedai_site.deidentify.codestream import are_offsets, items, streams, without_comments
from fedai_site.deidentify.iod import known_sop_classes
from fedai_site.deidentify.known import bytes_of
from fedai_site.quarantine import Quarantine, Reason

PIXEL_DATA = 0x7FE00010
EXTENDED_OFFSETS = (0x7FE00001, 0x7FE00002)
BITS_OF_FLOAT = {0x7FE00008: 32, 0x7FE00009: 64}
ROWS, COLUMNS, SAMPLES, FRAMES = 0x00280010, 0x00280011, 0x00280002, 0x00280008
ALLOCATED, STORED, HIGH_BIT, REPRESENTATION = 0x00280100, 0x00280101, 0x00280102, 0x00280103
PHOTOMETRIC = 0x00280004
VIDEO = ("1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7.")
DOCUMENTS, DOCUMENT = "1.2.840.10008.5.1.4.1.1.104.", 0x00420011
OVERLAY_GROUPS = range(0x6000, 0x6100, 2)


def check_kind(dataset: Dataset, syntax: UID, sop_class: str) -> None:
    """Raises Quarantine for what the engine can't look into: documents, video, unknown transfer syntaxes."""
    is_other = sop_class in known_sop_classes() and not sop_class.startswith(DOCUMENTS)
    if sop_class.startswith(DOCUMENTS) or (DOCUMENT in dataset and not is_other):
        raise Quarantine(Reason.ENCAPSULATED_DOCUMENT)
    if str(syntax).startswith(VIDEO):
        raise Quarantine(Reason.VIDEO)
    if syntax not in UID_dictionary or not syntax.is_transfer_syntax:
        raise Quarantine(Reason.UNSUPPORTED_SYNTAX)


def number(dataset: Dataset, tag: int, little: bool, default: int = 0) -> int:
    """A whole number of the data set (US or IS), or `default` if there is none."""
    element = dataset.get_item(tag) if tag in dataset else None
    if element is None:
        return default
    raw = bytes_of(element, little)
    if tag == FRAMES:
        text = raw.strip(b" \0")
        return int(text) if text.isdigit() else default
    return int.from_bytes(raw[:2], "little" if little else "big") if len(raw) >= 2 else default


def clean_native(clean: Dataset, original: Dataset, little: bool) -> dict[int, bytes]:
    """New values of native pixel elements that hold more than the picture; nothing for those that don't.

    Raises Quarantine for an overlay that can't be told from the picture.
    """
    _drop_offsets(clean)
    changed: dict[int, bytes] = {}
    for tag in (PIXEL_DATA, *BITS_OF_FLOAT):
        if tag in clean:
            value = bytes_of(clean.get_item(tag), little)
            shorter = _without_tail(value, original, tag, little)
            masked = _without_unused_bits(shorter, original, little) if tag == PIXEL_DATA else shorter
            if masked is not value:
                changed[tag] = masked
    return changed


def _without_tail(value: bytes, original: Dataset, tag: int, little: bool) -> bytes:
    """Cut off what follows the last frame and its padding byte, unless it is zeros."""
    expected = _expected_bytes(original, tag, little)
    if not expected or len(value) <= expected or not any(value[expected + expected % 2 :]):
        return value
    return value[: expected + expected % 2]


def _expected_bytes(original: Dataset, tag: int, little: bool) -> int:
    """Bytes of all frames, 0 if that isn't known."""
    pixels = number(original, ROWS, little) * number(original, COLUMNS, little)
    pixels *= max(1, number(original, FRAMES, little, 1))
    bits = BITS_OF_FLOAT.get(tag) or number(original, ALLOCATED, little) * number(
        original, SAMPLES, little, 1
    )
    if PHOTOMETRIC in original:
        name = bytes_of(original.get_item(PHOTOMETRIC), little)
        bits = bits * 2 // 3 if name.strip(b" \0") == b"YBR_FULL_422" else bits
    return (pixels * bits + 7) // 8


def overlays_in_pixels(original: Dataset) -> bool:
    """Whether the object says that unused bits of its pixels are overlays."""
    overlays = {tag for tag in map(int, original.keys()) if tag >> 24 == 0x60}
    return any(tag & 0xFFFF == 0x0102 and tag & 0xFFFF0000 | 0x3000 not in overlays for tag in overlays)


def _without_unused_bits(value: bytes, original: Dataset, little: bool) -> bytes:
    """Bits of each word outside of the stored ones become zeros, whether or not an overlay says it is there.

    Repeated signs of signed words stay. Raises Quarantine for signed words that are none, and where what the
    object says about bits or overlays in them makes no sense.
    """
    allocated, stored = number(original, ALLOCATED, little), number(original, STORED, little)
    high = number(original, HIGH_BIT, little, stored - 1)
    is_sensible = allocated in (8, 16, 32) and 0 < stored <= high + 1 <= allocated
    mask = ((1 << stored) - 1) << (high + 1 - stored) if is_sensible else 0
    if overlays_in_pixels(original) and not (is_sensible and _are_beside(original, mask, allocated, little)):
        raise Quarantine(Reason.OVERLAY_IN_PIXELS)
    if not is_sensible or stored == allocated:
        return value
    kind: Any = np.dtype(f"{'<>'[not little]}u{allocated // 8}")
    words = np.frombuffer(value, kind, count=len(value) // kind.itemsize)
    if high == stored - 1 and (not len(words) or int(words.max()) >> stored == 0):
        return value
    is_signed = number(original, REPRESENTATION, little) == 1 and high == stored - 1
    if is_signed and not overlays_in_pixels(original):
        return _checked_signs(value, words, stored)
    masked: bytes = (words & kind.type(mask)).astype(kind).tobytes()
    return masked + value[len(words) * kind.itemsize :]


def _checked_signs(value: bytes, words: Any, stored: int) -> bytes:
    numbers = words.view(words.dtype.str.replace("u", "i"))
    if numbers.min() < -(1 << stored - 1) or numbers.max() >= 1 << stored - 1:
        raise Quarantine(Reason.OVERLAY_IN_PIXELS)
    return value


def _are_beside(original: Dataset, mask: int, allocated: int, little: bool) -> bool:
    """Whether all overlays that the object says are in the pixels lie outside of the picture's own bits."""
    for group in OVERLAY_GROUPS:
        position = number(original, group << 16 | 0x0102, little)
        is_stated = group << 16 | 0x0102 in original and position  # 0 is what overlays of their own say
        if is_stated and (position >= allocated or mask >> position & 1):
            return False
    return True


def clean_compressed(clean: Dataset, original: Dataset, syntax: UID) -> tuple[bytes | None, int]:
    """(new value or None, number of overwritten comments) of compressed pixels.

    Raises Quarantine for overlays in them, which can't be cut out without decoding, and for surplus frames.
    """
    if PIXEL_DATA not in clean:
        _drop_offsets(clean)
        return None, 0
    if overlays_in_pixels(original) and _has_unused_bits(original):
        raise Quarantine(Reason.OVERLAY_IN_PIXELS)
    before = bytes_of(clean.get_item(PIXEL_DATA), True)
    size = number(original, ROWS, True) * number(original, COLUMNS, True)
    if streams(before, syntax, size) > max(1, number(original, FRAMES, True)):
        raise Quarantine(Reason.SUSPICIOUS_CONTENT, "more frames than its header says")
    value, count = without_comments(before, syntax, size)
    _check_extended_offsets(clean, value)
    return (value if count else None), count


def _check_extended_offsets(clean: Dataset, value: bytes) -> None:
    """Take the extended offset table out unless it is one (PS3.3 C.7.6.3.1.8)."""
    places, lengths = (
        bytes_of(clean.get_item(tag), True) if tag in clean else b"" for tag in EXTENDED_OFFSETS
    )
    found = items(value)
    sizes = {end - start for start, end in found[1:]} | {end - start - 1 for start, end in found[1:]}
    told = [int.from_bytes(lengths[at : at + 8], "little") for at in range(0, len(lengths), 8)]
    is_table = are_offsets(places, 8, found) and len(lengths) == len(places) and sizes.issuperset(told)
    if not is_table:
        _drop_offsets(clean)


def _drop_offsets(clean: Dataset) -> None:
    """Where there are no frames in fragments there is nothing that an extended offset table could tell."""
    for tag in EXTENDED_OFFSETS:
        if tag in clean:
            del clean[tag]


def _has_unused_bits(original: Dataset) -> bool:
    return number(original, STORED, True) < number(original, ALLOCATED, True)
