"""What hides in compressed pixels beside the picture."""

from __future__ import annotations

import pytest
from coded_streams import (
    TABLES,
    huffman,
    jpeg,
    jpeg_2000,
    quantization,
    segment,
    tile_part,
)
from fedai_site.deidentify.codestream import without_comments
from fedai_site.deidentify.runlength import hidden
from fedai_site.quarantine import Quarantine
from pydicom.encaps import encapsulate

BASELINE, J2K = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"
NAME = b"Zebulon"


def cleaned(stream: bytes) -> tuple[bytes, int]:
    """The element after cleaning and how much was overwritten; its length has to stay."""
    syntax = BASELINE if stream.startswith(b"\xff\xd8") else J2K
    value, count = without_comments(encapsulate([stream]), syntax)
    assert len(value) == len(encapsulate([stream]))
    return value, count


def test_a_stream_without_anything_hidden_stays_as_it_is() -> None:
    for stream in (jpeg(), jpeg_2000()):
        assert cleaned(stream) == (encapsulate([stream]), 0)


def test_comments_application_segments_and_what_follows_the_end_are_overwritten_in_place() -> None:
    stream = jpeg(segment(0xE1, NAME + b"\0"), segment(0xFE, NAME), after=b"Zebulon!")
    value, count = cleaned(stream)
    assert count == 3
    assert NAME not in value
    assert b"\x12\x34\xff\xd9" in value


def test_comments_and_pointers_of_jpeg_2000_are_overwritten_in_main_and_tile_headers() -> None:
    comment = segment(0x64, b"\0\x01" + NAME)
    pointers = segment(0x55, b"\0\x50" + NAME) + segment(0x63, NAME + b"\0")
    lengths = segment(0x58, b"\0" + NAME)
    stream = jpeg_2000(comment, pointers, parts=tile_part(comment + lengths), after=NAME)
    value, count = cleaned(stream)
    assert count == 6
    assert NAME not in value
    assert b"\xff\x93\xab\xcd" in value


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xDB, bytes([1]) + (NAME * 10)[:64]),
        segment(0xC4, bytes([0x11, 0, 7, *[0] * 14]) + NAME),
        segment(0xC4, huffman(0x11) + bytes([0x01, 0, 7, *[0] * 14]) + NAME),
        segment(0xDB, bytes([0]) + (NAME * 10)[:64]),  # replaced by the table that follows
    ],
    ids=["quantization", "Huffman", "second of two", "replaced"],
)
def test_tables_that_no_scan_uses_become_zeros(extra: bytes) -> None:
    value, count = cleaned(jpeg(extra))
    assert count == 1
    assert NAME not in value
    assert TABLES in value


def test_a_used_table_stays_beside_an_unused_one_in_the_same_segment() -> None:
    both = segment(0xDB, bytes([2]) + (NAME * 10)[:64] + quantization(0, 7))
    value, count = cleaned(jpeg(tables=both + TABLES[TABLES.index(b"\xff\xc4") :]))
    assert count == 1
    assert NAME not in value
    assert segment(0xDB, quantization(0, 7)) in value


@pytest.mark.parametrize(
    "stream",
    [
        jpeg(scan=b"\x12\x34\xff\xd0" + NAME),
        jpeg(segment(0xDD, b"\0\x02"), scan=b"\x12\xff\xd0\x34\xff\xd1" + NAME),
        jpeg(segment(0xDD, b"\0\x02"), scan=b"\x12\xff\xd3" + NAME),
        jpeg(scan=b"\x12\x34\xff\x01" + NAME),
        jpeg(segment(0xF0, NAME)),
        jpeg(segment(0xDE, NAME)),
        jpeg(segment(0xDD, b"\0\x02" + NAME)),
        jpeg(segment(0xDB, quantization(1) + NAME)),
        jpeg(segment(0xF8, b"\x02" + NAME)),
        jpeg_2000(segment(0x30, NAME)),
        jpeg_2000(segment(0x74, NAME)),
        jpeg_2000(segment(0x52, b"\x00\x00\x00\x01\x00\x00\x04\x04\x00\x01" + NAME)),
        jpeg_2000(parts=tile_part() + tile_part(data=NAME, number=3)),
        jpeg_2000(parts=tile_part() + tile_part(data=NAME, part=5)),
        jpeg_2000(parts=tile_part() + NAME),
    ],
)
def test_streams_with_bytes_that_no_decoder_reads_and_nobody_can_place_go_to_quarantine(
    stream: bytes,
) -> None:
    with pytest.raises(Quarantine, match="SUSPICIOUS_CONTENT"):
        cleaned(stream)


def test_restart_markers_that_the_interval_asks_for_stay() -> None:
    stream = jpeg(segment(0xDD, b"\0\x02"), scan=b"\x12\xff\xd0\x34")
    assert cleaned(stream) == (encapsulate([stream]), 0)


def test_the_end_of_a_run_that_unfolds_to_more_than_the_picture_is_overwritten() -> None:
    frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + b"\x09\x01\x02\x03" + NAME
    assert list(hidden(frame, 3)) == [(68, bytes(len(NAME)))]


def test_a_codestream_whose_tile_part_ends_before_its_data_doesn_t_go_on_for_ever() -> None:
    stream = jpeg_2000(parts=segment(0x90, b"\0\0\0\0\0\x0e\0\x01") + segment(0x64, b"\0\x01a") + b"\xff\x93")
    with pytest.raises(Quarantine):
        cleaned(stream)
