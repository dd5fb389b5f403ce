"""Whether a file tells of the machine it was made on: where its Python, its packages and its users lie."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import torch

import fedai

PLACES = {
    Path(sys.prefix),
    Path(sys.base_prefix),
    Path.home(),
    Path(torch.__file__).parents[1],
    Path(fedai.__file__).parents[1],
    Path(tempfile.gettempdir()),
}


def told_places(path: Path) -> list[str]:
    """`MEMBER: PLACE` of each of this machine's folders that a file, or one in it or below it, names."""
    files = [path] if path.is_file() else [one for one in sorted(path.rglob("*")) if one.is_file()]
    return [
        f"{name}: {place}"
        for file in files
        for name, data in _members(file.name, file.read_bytes())
        for place in sorted(PLACES)
        if len(place.parts) > 1 and str(place).encode() in data
    ]


def _members(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file's bytes, and those of all that is in it, unpacked."""
    yield name, data
    if is_zipfile(BytesIO(data)):
        with ZipFile(BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from _members(f"{name}/{member}", archive.read(member))
