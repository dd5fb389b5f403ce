"""The home's inbox: originals that an archive has sent, until `fedai site add-data` has cleaned them.

`inbox/ab/ab12....dcm`, named by the SHA-256 of their bytes, readable by the owner only. A file is there whole
or not at all, and is on the disk, folder entry and all, before `store` returns. Nothing in here parses it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

INBOX = "inbox"
PARTS = ".parts"  # what is being received
MAXIMUM_BYTES = 2 << 30
PIECE = 1 << 20


class TooLarge(OSError):
    """What came is longer than what is read in one piece."""


def open_inbox(home: Path) -> Path:
    """The home's inbox, made if it isn't there; 0700."""
    folder = home / INBOX
    for one in (folder, folder / PARTS):
        one.mkdir(exist_ok=True, mode=0o700)
        one.chmod(0o700)
    return folder


def waiting(folder: Path) -> Iterator[Path]:
    """The originals in an inbox, by name."""
    for shelf in sorted(folder.glob("[0-9a-f][0-9a-f]")):
        yield from sorted(shelf.glob("*.dcm"))


def what_waits(folder: Path) -> tuple[int, int]:
    """(how many originals, when the last one came, ns): another answer where something has come since."""
    came = 0, 0
    for path in waiting(folder):
        try:
            came = came[0] + 1, max(came[1], path.stat().st_mtime_ns)
        except FileNotFoundError:
            continue
    return came


def store(folder: Path, part: Path, pieces: Iterable[bytes]) -> Path:
    """Write pieces to `part`, which is new, and `keep` it. Raises OSError; then nothing is left of it."""
    size = 0
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for piece in pieces:
                size += file.write(piece)
                if size > MAXIMUM_BYTES:
                    raise TooLarge("too large")
        return keep(folder, part)
    finally:
        part.unlink(missing_ok=True)


def keep(folder: Path, part: Path) -> Path:
    """Move a file into the inbox under the hash of its bytes; what came before in the same bytes is as new.

    When it returns, a crash of the machine loses nothing. Raises OSError.
    """
    part.chmod(0o600)
    digest = sha256()
    with part.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
        os.fsync(file.fileno())
    name = digest.hexdigest()
    shelf = folder / name[:2]
    if not shelf.is_dir():
        shelf.mkdir(exist_ok=True, mode=0o700)
        _sync(folder)
    path = shelf / f"{name}.dcm"
    part.replace(path)
    os.utime(path)
    _sync(shelf)
    return path


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def release(paths: Iterable[tuple[Path, int]]) -> None:
    """Delete originals, given with the time (ns) at which they came, when all else is on the disk.

    One that has come again meanwhile stays.
    """
    os.sync()
    for path, mtime_ns in paths:
        try:
            if path.stat().st_mtime_ns == mtime_ns:
                path.unlink()
        except FileNotFoundError:
            continue
