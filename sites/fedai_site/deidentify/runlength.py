"""Bytes of an RLE frame that no decoder reads (PS3.5 G): behind a segment's end, in the unused header."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from fedai_site.quarantine import Quarantine, Reason

HEADER, MOST = 64, 15


def hidden(frame: bytes, pixels: int) -> Iterator[tuple[int, bytes]]:
    """Where in a frame something stands that belongs to no segment, and as many zeros. `pixels`: rows times
    columns, which is how many bytes each segment unfolds to. Raises Quarantine where the header isn't one.
    """
    count, *offsets = struct.unpack_from("<16L", frame.ljust(HEADER, b"\0"))
    ends = [*offsets[:count], len(frame)]
    if not 0 < count <= MOST or ends[0] != HEADER or any(a >= b for a, b in pairwise(ends)):
        raise Quarantine(Reason.SUSPICIOUS_CONTENT, "a run-length frame without its header")
    for start, end in (
        (4 + 4 * count, HEADER),
        *((_end(frame, *both, pixels), both[1]) for both in pairwise(ends)),
    ):
        if frame[start:end].strip(b"\0"):
            yield start, bytes(end - start)


def _end(frame: bytes, at: int, end: int, pixels: int) -> int:
    """Where the segment has unfolded to all of its bytes (PackBits, PS3.5 G.3.2); of a last run that is too
    long what isn't needed doesn't count.
    """
    while pixels > 0 and at < end:
        control = frame[at]
        if control < 128:
            at += min(control + 1, pixels) + 1
            pixels -= control + 1
        else:
            at += 1 if control == 128 else 2
            pixels -= 0 if control == 128 else 257 - control
    return min(at, end)
