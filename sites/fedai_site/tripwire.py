"""Notices an image among the numbers that are about to leave.

An array that holds a row of an image's pixels one after the other, scaled and shifted by whatever amount,
upside down or mirrored, rises and falls where the image does. So each image is known by the pattern of rises
over 33 pixels, at many places; where an outgoing array has the same pattern, the 128 numbers from there on
are correlated with the image's. Noise doesn't correlate: honest updates pass (tests/sites/test_tripwire.py).
It is a tripwire, no proof: pixels in another order, or hidden in low bits, aren't noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fedai.errors import RefusedByPolicy
from fedai.wire import Reply

BITS = 32  # rises looked at: of 33 neighbouring values
WINDOW = 128  # values that are correlated
LEAST_CORRELATION = 0.8
MOST_PATTERNS = 2_000_000  # of all images together
LEAST_PER_IMAGE = 64
BEGIN_BITS = 26
CHANGES = (6, 26)  # rises among 32 that tell something; a ramp or a plateau doesn't
CHUNK = 20_000  # candidates correlated at a time

Patterns = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Tripwire:
    """Images uint8 [N, rows, columns], and the patterns of them and their mirror images, sorted: uint32 [M],
    with image (int32; N + n is the mirror image of n) and place of each.
    """

    images: npt.NDArray[np.uint8]
    patterns: Patterns
    owners: npt.NDArray[np.int32]
    places: npt.NDArray[np.int32]

    @cached_property
    def begun(self) -> npt.NDArray[np.bool_]:
        """Which first `BEGIN_BITS` bits any pattern has: most of what is looked for ends here."""
        table = np.zeros(1 << BEGIN_BITS, dtype=np.bool_)
        table[self.patterns >> np.uint32(BITS - BEGIN_BITS)] = True
        return table

    def finds(self, values: npt.NDArray[Any]) -> bool:
        """Whether `values` holds a piece of one of the images."""
        flat = np.ascontiguousarray(values).reshape(-1).astype(np.float32)
        if len(flat) <= BITS or not len(self.patterns):
            return False
        return self._is_in(flat) or self._is_in(-flat)

    def _is_in(self, flat: npt.NDArray[np.float32]) -> bool:
        """Candidates are places of equal pattern; each is correlated."""
        found = patterns_of(flat)
        at = np.flatnonzero(self.begun[found >> np.uint32(BITS - BEGIN_BITS)])
        first = np.searchsorted(self.patterns, found[at], side="left")
        counts = np.searchsorted(self.patterns, found[at], side="right") - first
        for begin in range(0, len(at), CHUNK):
            part = slice(begin, begin + CHUNK)
            spots = np.repeat(at[part], counts[part])
            known = _ranges(first[part], counts[part])
            if self._correlates(flat, spots, known):
                return True
        return False

    def _correlates(
        self, flat: npt.NDArray[np.float32], spots: npt.NDArray[np.int64], known: npt.NDArray[np.int64]
    ) -> bool:
        width = _width(self.images)
        for begin in range(0, len(spots), CHUNK):
            starts, patterns = spots[begin : begin + CHUNK], known[begin : begin + CHUNK]
            fits = starts + width <= len(flat)
            ours = flat[starts[fits, None] + np.arange(width)].astype(np.float64)
            theirs = self._pixels(patterns[fits], width)
            if (_correlation(ours, theirs) >= LEAST_CORRELATION).any():
                return True
        return False

    def _pixels(self, patterns: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.float64]:
        """float64 [patterns, width]: the pixels from each pattern's place on."""
        number, columns = len(self.images), self.images.shape[2]
        owners = self.owners[patterns, None]
        rows, across = np.divmod(self.places[patterns, None] + np.arange(width), columns)
        across = np.where(owners < number, across, columns - 1 - across)
        return self.images[owners % number, rows, across].astype(np.float64)


def _width(images: npt.NDArray[np.uint8]) -> int:
    return min(WINDOW, images[0].size // 2) if len(images) else WINDOW


def patterns_of(flat: npt.NDArray[Any]) -> Patterns:
    """uint32 [..., n - 32]: at each place, one bit for each of 32 steps to the next value, set where it
    rises.
    """
    codes = (flat[..., 1:] > flat[..., :-1]).astype(np.uint32)
    width = 1
    while width < BITS:
        codes = (codes[..., :-width] << np.uint32(width)) | codes[..., width:]
        width *= 2
    return codes


def lay(splits: Sequence[npt.NDArray[np.uint8]]) -> Tripwire:
    """The tripwire of images uint8 [N, 1, rows, columns], of any number of splits."""
    images = np.concatenate([part[:, 0] for part in splits])
    usable = images[0].size - max(_width(images), BITS + 1) + 1 if len(images) else 0
    wanted = max(LEAST_PER_IMAGE, MOST_PATTERNS // max(1, 2 * len(images)))
    step = max(1, -(-usable // wanted))
    found = [_telling(image, usable, step) for side in (images, images[:, :, ::-1]) for image in side]
    patterns = np.concatenate([codes for codes, _ in found] or [np.empty(0, np.uint32)])
    owners = np.repeat(np.arange(len(found), dtype=np.int32), [len(codes) for codes, _ in found])
    places = np.concatenate([at for _, at in found] or [np.empty(0, np.int32)])
    order = np.argsort(patterns, kind="stable")
    return Tripwire(images, patterns[order], owners[order], places[order])


def _telling(image: npt.NDArray[np.uint8], usable: int, step: int) -> tuple[Patterns, npt.NDArray[np.int32]]:
    """Patterns of an image and their places: every `step`th of those that rise and fall enough."""
    codes = patterns_of(image.reshape(-1))[:usable]
    rises = np.bitwise_count(codes)
    places = np.flatnonzero((rises >= CHANGES[0]) & (rises <= CHANGES[1]))[::step]
    return codes[places], places.astype(np.int32)


def _ranges(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """start, start + 1, ... of each range, one range after the other."""
    ends = np.cumsum(counts)
    return (
        np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts) + np.repeat(starts, counts)
    )


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pearson's, row by row; 0 where a row doesn't vary."""
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    products = (a * b).sum(axis=1)
    out: npt.NDArray[np.float64] = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return out


def check_pixels(reply: Reply, tripwire: Tripwire | None) -> None:
    """Raise RefusedByPolicy where one of the reply's arrays holds a piece of an image."""
    if tripwire is None:
        return
    found = [name for name, array in sorted(reply.arrays.items()) if tripwire.finds(array)]
    if found:
        raise RefusedByPolicy(
            f"array {', '.join(found)} holds a piece of an image that it was made of",
            hint="the model memorises: more cases, fewer epochs, or another network; tell the coordinator",
            reason="MEMORISED_IMAGE",
        )
