from __future__ import annotations

from pathlib import Path

import numpy as np
from fedai_site.traces import PIECE, Traces, files_under, find
from hypothesis import given, settings
from hypothesis import strategies as some


def content(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@given(
    some.integers(0, 99), some.sampled_from([40, 300, 5000, 70_000]), some.integers(0, 5000),
    some.sampled_from([0, 3, PIECE - 40, PIECE + 7]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_copy_is_found_at_any_place_and_other_bytes_are_not(
    seed: int, size: int, before: int, far: int
) -> None:
    import tempfile

    traces = Traces()
    traces.add(content(seed, size))
    with tempfile.TemporaryDirectory() as folder:
        copy, other = Path(folder) / "copy", Path(folder) / "other"
        copy.write_bytes(bytes(before + far) + content(seed, size) + b"end")
        other.write_bytes(content(seed + 1000, size + before + far))
        found, files, read = find(traces, files_under(Path(folder)))
        assert (found, files) == ([copy], 2)
        assert read == copy.stat().st_size + other.stat().st_size


def test_half_of_a_content_is_found_as_well(tmp_path: Path) -> None:
    whole, traces = content(1, 100_000), Traces()
    traces.add(whole)
    (tmp_path / "first").write_bytes(whole[:50_000])
    (tmp_path / "second").write_bytes(whole[50_000:])
    assert len(find(traces, files_under(tmp_path))[0]) == 2


def test_a_content_with_nothing_to_recognise_is_counted(tmp_path: Path) -> None:
    traces = Traces()
    traces.add(bytes(10_000))
    traces.add(b"\x01\x02" * 500)
    traces.add(b"short")
    (tmp_path / "black").write_bytes(bytes(10_000))
    assert traces.plain == 3
    assert find(traces, files_under(tmp_path)) == ([], 1, 10_000)


def test_texts_are_found_whole(tmp_path: Path) -> None:
    traces = Traces()
    traces.add_text("2.25.1234567890123456789")
    traces.add_text("short")
    (tmp_path / "log").write_text("a line with 2.25.1234567890123456789 in it")
    (tmp_path / "other").write_text("a line with 2.25.1234567890123456780 in it, which is short")
    assert find(traces, files_under(tmp_path))[0] == [tmp_path / "log"]


def test_nothing_is_found_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content(1, 5000))
    assert find(Traces(), files_under(tmp_path)) == ([], 1, 5000)
