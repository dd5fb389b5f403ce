"""Words inside compressed pixels, where decoders don't look: comments, application segments, boxes, tails."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from benchmarks.deidentification.burned import frames_of
from benchmarks.deidentification.identities import word
from benchmarks.deidentification.plants import Hand

ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
Hide = Callable[[bytes, bytes], bytes]
"""(codestream, word) -> a codestream that decodes to the same pixels and holds the word."""


def compress(item: Dataset, syntax: str, hand: Hand) -> None:
    """Compress native pixels, with words in up to three places of the stream, in the offset table or none."""
    if syntax == JPEGBaseline8Bit:
        streams = _jpeg_streams(item, hand)
    else:
        item.compress(syntax, generate_instance_uid=False)
        streams = list(generate_frames(item.PixelData, number_of_frames=int(item.get("NumberOfFrames") or 1)))
    ways = hand.random.sample(sorted(WAYS[syntax]), min(3, len(WAYS[syntax])))
    for way in sorted(ways):
        token = hand.note(word(hand.random, 5), f"codestream: {way}", "codestream").encode()
        streams = [WAYS[syntax][way](stream, token) for stream in streams]
    _store(item, streams, hand)


def _store(item: Dataset, streams: list[bytes], hand: Hand) -> None:
    """As items; a single frame in two fragments sometimes, so that a word may stand in the second."""
    table = b""
    if hand.random.random() < 0.3:
        table = hand.note(word(hand.random, 5), "codestream: offset table", "codestream").encode().ljust(20)
    may_be_cut = len(streams) == 1 and item.file_meta.TransferSyntaxUID != RLELossless  # PS3.5 A.4.2
    if may_be_cut and hand.random.random() < 0.4:
        cut = hand.random.randrange(20, 60) * 2
        streams = [streams[0][:cut], streams[0][cut:]]
    pieces = [table, *(stream + b"\0" * (len(stream) % 2) for stream in streams)]
    item.PixelData = b"".join(ITEM + len(piece).to_bytes(4, "little") + piece for piece in pieces) + END
    item["PixelData"].VR, item["PixelData"].is_undefined_length = "OB", True


def _jpeg_streams(item: Dataset, hand: Hand) -> list[bytes]:
    """Baseline JPEG of 8-bit colour, by Pillow; one codestream a frame."""
    from PIL import Image

    streams = []
    for frame in frames_of(item):
        buffer = BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=92)
        streams.append(buffer.getvalue())
    item.PhotometricInterpretation = "YBR_FULL_422"
    item.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return streams


def _segment(marker: int, content: bytes) -> bytes:
    return marker.to_bytes(2, "big") + (len(content) + 2).to_bytes(2, "big") + content


def _after_start(marker: int, begin: bytes = b"") -> Hide:
    return lambda stream, token: stream[:2] + _segment(marker, begin + token) + stream[2:]


def _before_scan(stream: bytes, token: bytes) -> bytes:
    at = stream.index(b"\xff\xda")
    return stream[:at] + _segment(0xFFFE, token) + stream[at:]


def _before_end(stream: bytes, token: bytes) -> bytes:
    """Between the scan and EOI, where the comment of a further scan may stand."""
    at = stream.rindex(b"\xff\xd9")
    return stream[:at] + _segment(0xFFFE, token) + stream[at:]


def _at_the_end(stream: bytes, token: bytes) -> bytes:
    return stream + token


def _in_j2k_header(stream: bytes, token: bytes) -> bytes:
    size = 4 + int.from_bytes(stream[4:6], "big")  # the main header begins with SOC and SIZ
    return stream[:size] + _segment(0xFF64, b"\x00\x01" + token) + stream[size:]


def _in_j2k_header_binary(stream: bytes, token: bytes) -> bytes:
    size = 4 + int.from_bytes(stream[4:6], "big")
    return stream[:size] + _segment(0xFF64, b"\x00\x00" + token) + stream[size:]


WAYS: dict[str, dict[str, Hide]] = {
    JPEGBaseline8Bit: {
        "1 comment": _after_start(0xFFFE),
        "2 application segment": _after_start(0xFFED, b"Photoshop 3.0\0"),
        "3 JFIF extension": _after_start(0xFFE0, b"JFXX\0\x10"),
        "4 Adobe segment": _after_start(0xFFEE, b"Adobe\0d\0\0\0\0\x01"),
        "5 comment before the scan": _before_scan,
        "6 comment after the scan": _before_end,
        "7 after the end": _at_the_end,
    },
    JPEG2000Lossless: {
        "1 comment": _in_j2k_header,
        "2 binary comment": _in_j2k_header_binary,
        "3 after the end": _at_the_end,
    },
    RLELossless: {"1 after the last segment": _at_the_end},
}
