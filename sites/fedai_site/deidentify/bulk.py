"""Tables, samples and coordinates: whether they are as long as their item says, and nothing but numbers.

PS3.3 C.7.6.3.1.5-6 and C.11.1 (lookup tables), C.10.9 (waveforms).
"""

from __future__ import annotations

import re
import struct
from itertools import pairwise

from pydicom.dataset import Dataset

from fedai_site.deidentify.known import bytes_of

PALETTES = {0x00281201: 0x00281101, 0x00281202: 0x00281102, 0x00281203: 0x00281103, 0x00281204: 0x00281104}
LUT_DATA, LUT_DESCRIPTOR = 0x00283006, 0x00283002
WAVEFORM, CHANNELS, SAMPLES, BITS = 0x54001010, 0x003A0005, 0x003A0010, 0x54001004
SINGLE_SAMPLES = frozenset({0x5400100A, 0x54000110, 0x54000112})  # padding, minimum, maximum
LONGEST_SAMPLE = 4
PHOTOMETRIC = 0x00280004
RUN = re.compile(rb"[A-Za-z]{8,}")
SIGN = rb"[A-Za-z0-9^=, ._/:+'-]"
TEXT, TEXT_RUN = re.compile(SIGN + rb"{4,}[\0 ]*"), re.compile(SIGN + rb"{12,}")
MAIL = re.compile(rb"[A-Za-z0-9^=, ._/:@+'-]{4,}[\0 ]*")
SHORTEST_TEXT, MEASURED, FEW = 8, (1e-9, 1e9), 4
LONGEST_RUNS = ((256, 12), (4096, 16), (1 << 62, 24))
"""Up to how many bytes which run of signs is a text and not numbers by chance."""
SIZES = ((4096, 8), (1 << 20, 12), (1 << 62, 16))
"""Up to how many bytes which run of letters is a word: in many numbers short ones come about by chance."""


def fits(item: Dataset, tag: int, raw: bytes, little: bool) -> bool:
    """Whether a value has the size that its item gives it; True where no item says so."""
    if tag in SINGLE_SAMPLES:
        return len(raw) <= LONGEST_SAMPLE
    if tag == WAVEFORM:
        return len(raw) in _waveform_sizes(item, little)
    descriptor = PALETTES.get(tag) or (LUT_DESCRIPTOR if tag == LUT_DATA else 0)
    return not descriptor or len(raw) in _table_sizes(item, descriptor, little)


def _numbers(item: Dataset, tag: int, little: bool) -> tuple[int, ...]:
    raw = bytes_of(item.get_item(tag), little) if tag in item else b""
    kind = "I" if tag == SAMPLES else "H"
    count = len(raw) // struct.calcsize(kind)
    return struct.unpack_from("<>"[not little] + kind * count, raw)


def _table_sizes(item: Dataset, descriptor: int, little: bool) -> set[int]:
    """Bytes of a table by its descriptor: entries (0 for 65536) of 8 bits, packed or not, or 16."""
    numbers = _numbers(item, descriptor, little)
    if len(numbers) != 3:
        return set()
    entries = numbers[0] or 0x10000
    return {entries * 2} | ({entries + entries % 2} if numbers[2] <= 8 else set())


def _waveform_sizes(item: Dataset, little: bool) -> set[int]:
    parts = [_numbers(item, tag, little) for tag in (CHANNELS, SAMPLES, BITS)]
    if not all(len(numbers) == 1 for numbers in parts):
        return set()
    size = parts[0][0] * parts[1][0] * parts[2][0] // 8
    return {size + size % 2}


def holds_words(raw: bytes) -> bool:
    """Whether a run of letters is too long to come from numbers. Ramps (AABBCC) aren't words."""
    shortest = next(letters for size, letters in SIZES if len(raw) <= size)
    return any(_is_word(run, shortest) for run in RUN.findall(raw))


def is_text(raw: bytes, vr: str, little: bool) -> bool:
    """Whether a binary number's bytes are a text: all of them, an impossible double, a long run."""
    if len(raw) < SHORTEST_TEXT:
        return False
    if TEXT.fullmatch(raw) is not None and len(set(raw)) > FEW:
        return True
    if _is_utf8_text(raw, vr, little):
        return True
    if vr == "FD" and any(_is_spelt(raw[at : at + 8], little) for at in range(0, len(raw), 8)):
        return True
    longest = next(letters for size, letters in LONGEST_RUNS if len(raw) <= size)
    return any(len(run) >= longest and len(set(run)) > FEW for run in TEXT_RUN.findall(raw))


def _is_utf8_text(raw: bytes, vr: str, little: bool) -> bool:
    """Letters beyond ASCII that are whole UTF-8, and of doubles some that nobody measures: not by chance."""
    try:
        text = raw.rstrip(b" \0").decode("utf-8")
    except UnicodeDecodeError:
        return False
    if text.isascii() or not text.isprintable() or not any(letter.isalpha() for letter in text):
        return False
    if vr == "FD":
        return not all(_is_measured(raw[at : at + 8], little) for at in range(0, len(raw), 8))
    return len(raw) >= LONGEST_RUNS[0][1]


def _is_measured(raw: bytes, little: bool) -> bool:
    number = abs(float(struct.unpack("<>"[not little] + "d", raw)[0]))
    return number == 0 or MEASURED[0] <= number <= MEASURED[1]


def _is_spelt(raw: bytes, little: bool) -> bool:
    return MAIL.fullmatch(raw) is not None and not _is_measured(raw, little)


def _is_word(run: bytes, shortest: int) -> bool:
    steps = [after - before for before, after in pairwise(run)]
    return len(run) >= shortest and min(steps) < 0 < max(steps)


def is_needed(item: Dataset, tag: int, little: bool) -> bool:
    """Whether an object means nothing without this value: samples, and the palette of what is shown by it."""
    if tag == WAVEFORM:
        return True
    is_palette = tag in PALETTES and PHOTOMETRIC in item
    return is_palette and bytes_of(item.get_item(PHOTOMETRIC), little).strip(b" \0") == b"PALETTE COLOR"
