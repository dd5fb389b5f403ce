"""Whether coded pixels end where their streams do: what follows the last of them, no decoder reads or shows.

Found out by trial, in a process apart, for a broken stream may break its decoder: other bytes are put in the
place of the last ones; a picture that stays as it was doesn't depend on them. Fewer than `SIZE` bytes can't
be found so.
"""

from __future__ import annotations

from copy import copy

from pydicom.dataset import Dataset

from fedai_site import decoding
from fedai_site.deidentify.codestream import last_bytes, overwritten
from fedai_site.deidentify.jpeg import Patch
from fedai_site.deidentify.pixels import frames
from fedai_site.deidentify.pixels.frames import Layout
from fedai_site.deidentify.writing import file_bytes
from fedai_site.quarantine import Quarantine, Reason

DESCRIPTION = frozenset(
    {"SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"}
    | {"BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration"}
    | {"ExtendedOffsetTable", "ExtendedOffsetTableLengths"}
)
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
        many |= _unmoved(dataset, found, value, tried)
    return frozenset(many)


def _unmoved(dataset: Dataset, found: Layout, value: bytes, tried: dict[int, list[Patch]]) -> set[int]:
    """The frames that show the same with these patches. One that ends its decoder doesn't."""
    before = {number: _digest(dataset, found, number) for number in tried}
    patches = [patch for places in tried.values() for patch in places]
    after = decoding.damaged_frames(_file(dataset, found, overwritten(value, patches)))
    if not after and len(tried) > 1:
        return set().union(*(_unmoved(dataset, found, value, {number: tried[number]}) for number in tried))
    return {number for number in tried if after and after[number] == before[number]}


def _digest(dataset: Dataset, found: Layout, number: int) -> bytes:
    try:
        return decoding.digest(frames.decoded(dataset, found, number)[0])
    except frames.FAULTS_AND_REFUSALS:
        raise Quarantine(Reason.PIXELS_NOT_EXAMINED, "a frame that can't be decoded") from None


def _file(dataset: Dataset, found: Layout, value: bytes) -> bytes:
    """A file of the same pixels' description with other pixel bytes."""
    other = Dataset({element.tag: element for element in dataset if element.keyword in DESCRIPTION})
    other.file_meta = dataset.file_meta
    other[found.element] = copy(dataset[found.element])
    other[found.element].value = value
    return file_bytes(other)
