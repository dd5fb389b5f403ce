"""Whether coded pixels end where their streams do: what follows the last of them, no decoder reads or shows.

Found out by trial: other bytes are put in the place of the last ones; a picture that stays as it was doesn't
depend on them. Fewer than `SIZE` bytes can't be found so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

import numpy as np
from pydicom.dataset import Dataset

from fedai_site.deidentify.codestream import last_bytes, overwritten
from fedai_site.deidentify.pixels import frames
from fedai_site.deidentify.pixels.frames import Layout, Stored
from fedai_site.quarantine import Quarantine, Reason

SIZE = 4
MOST = 4
"""Ends of coded data in one frame that are tried one by one; with more the frame is encoded anew."""


def uncertain(dataset: Dataset, found: Layout) -> frozenset[int]:
    """The numbers of the frames that have to be encoded anew. Raises Quarantine."""
    if not (found.syntax.is_compressed and found.syntax.is_encapsulated):
        return frozenset()
    value = dataset[found.element].value
    ends = last_bytes(value, found.syntax, SIZE)[: found.count]
    many = {number for number, places in enumerate(ends) if len(places) > MOST}
    few = {number: places for number, places in enumerate(ends) if number not in many}
    for order in range(max(map(len, few.values()), default=0)):
        tried = {number: places[order] for number, places in few.items() if len(places) > order}
        patches = [patch for places in tried.values() for patch in places]
        other = _with_pixels(dataset, found, overwritten(value, patches))
        with quiet_decoders():
            many |= {number for number in tried if _shows_the_same(dataset, other, found, number)}
    return frozenset(many)


def _with_pixels(dataset: Dataset, found: Layout, value: bytes) -> Dataset:
    """The same object with other pixel bytes."""
    other = Dataset(dict(dataset.items()))
    other.file_meta = dataset.file_meta
    other[found.element] = copy(dataset[found.element])
    other[found.element].value = value
    return other


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Within it what decoders write to the terminal about broken streams goes nowhere: we broke them."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _shows_the_same(dataset: Dataset, other: Dataset, found: Layout, number: int) -> bool:
    before, after = (_read(each, found, number) for each in (dataset, other))
    if before is None:
        raise Quarantine(Reason.PIXELS_NOT_EXAMINED, "a frame that can't be decoded")
    return after is not None and np.array_equal(before, after)


def _read(dataset: Dataset, found: Layout, number: int) -> Stored | None:
    """A frame, None if it can't be decoded any more."""
    try:
        return frames.decoded(dataset, found, number)[0]
    except frames.FAULTS_AND_REFUSALS:
        return None
