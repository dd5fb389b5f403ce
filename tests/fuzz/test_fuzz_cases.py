"""Inputs that once broke something, found by fuzz_deidentify.py or written by hand: none does any more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from fedai_site.deidentify import Deidentifier, write
from fedai_site.deidentify.reading import parse
from fedai_site.quarantine import Quarantine

CASES = sorted((Path(__file__).parent / "cases").glob("*.dcm"))
SECONDS = 20.0


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_found_case_comes_out_clean_or_goes_to_quarantine(path: Path) -> None:
    began = monotonic()
    with suppress(Quarantine):
        parse(write(Deidentifier(bytes(range(32))).clean(parse(path.read_bytes()))))
    assert monotonic() - began < SECONDS
