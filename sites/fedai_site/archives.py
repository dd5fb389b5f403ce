"""ZIP archives as folders: member 3 of `export.zip` is the path `export.zip/000003`, counted from 1.

Members are read into memory one at a time, never written, and what they are called is neither used nor kept.
An archive is refused as a whole where it holds too many members, where they overlap, or where they unfold to
too much; a single member where it is encrypted or damaged.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, LargeZipFile, ZipFile, ZipInfo

from fedai_site.quarantine import Quarantine, Reason

SUFFIX = ".zip"
MOST_MEMBERS = 100_000
DIRECTORY_BYTES = 64 << 20  # the list of members is read in one piece
MEMBER_BYTES = 2 << 30
DENSEST, UNFOLDED, ALL_UNFOLDED = 200, 64 << 20, 1 << 30
"""A member, and all together, may unfold to so many times their length, and to so many bytes in any case."""
END, END_64 = b"PK\x05\x06", b"PK\x06\x06"
FAULTS = (BadZipFile, LargeZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError,
          ValueError, LookupError)  # fmt: skip


class Size(NamedTuple):
    """What identifies the bytes that lay somewhere: how many, and when they were last changed."""

    bytes: int
    mtime_ns: int


def archive_of(path: Path) -> Path | None:
    """The archive that a path leads into; None for a file of its own."""
    parent = path.parent
    return parent if parent.suffix.lower() == SUFFIX and parent.is_file() else None


def with_members(path: Path) -> Iterator[Path]:
    """The path itself, or those of an archive's members. A refused archive is one path; `read` says why."""
    if path.suffix.lower() != SUFFIX:
        yield path
        return
    try:
        members = _opened(path).infolist()
    except Quarantine:
        members = []
    numbers = [number for number, member in enumerate(members, 1) if not member.is_dir()]
    yield from (path / f"{number:06d}" for number in numbers)
    if not numbers:
        yield path


def size_of(path: Path) -> Size:
    """Of a file or a member; a member is as old as its archive. Raises OSError, Quarantine."""
    archive = archive_of(path)
    stat = (archive or path).stat()
    return Size(_member(archive, path.name).file_size if archive else stat.st_size, stat.st_mtime_ns)


def read(path: Path, maximum: int = MEMBER_BYTES) -> bytes:
    """The bytes of a file or a member. Raises Quarantine where it can't be read or is too long."""
    archive = archive_of(path)
    if archive is None and path.suffix.lower() == SUFFIX:
        _opened(path)
        raise Quarantine(Reason.NOT_DICOM, "an archive without files")
    try:
        if size_of(path).bytes > maximum:
            raise Quarantine(Reason.TOO_LARGE)
        return _unfolded(archive, path.name, maximum) if archive else path.read_bytes()
    except FileNotFoundError:
        raise Quarantine(Reason.MISSING) from None
    except OSError as error:
        raise Quarantine(Reason.UNREADABLE, error.strerror or "input/output error") from None


def _member(archive: Path, name: str) -> ZipInfo:
    members = _opened(archive).infolist()
    if not name.isdecimal() or not 0 < int(name) <= len(members):
        raise Quarantine(Reason.MISSING)
    return members[int(name) - 1]


def _unfolded(archive: Path, name: str, maximum: int) -> bytes:
    member = _member(archive, name)
    if member.flag_bits & 1:
        raise Quarantine(Reason.UNREADABLE, "encrypted in its archive")
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise Quarantine(Reason.UNREADABLE, "compressed in a way that isn't read here")
    if member.file_size > DENSEST * member.compress_size + UNFOLDED:
        raise Quarantine(Reason.TOO_LARGE, "unfolds to too much")
    try:
        with _opened(archive).open(member) as file:
            data = file.read(min(maximum, member.file_size) + 1)
    except FAULTS:
        raise Quarantine(Reason.UNREADABLE, "damaged in its archive") from None
    if len(data) != member.file_size:
        raise Quarantine(Reason.UNREADABLE, "damaged in its archive")
    return data


def _opened(path: Path) -> ZipFile:
    """The archive, checked; the one opened last stays open. Raises Quarantine."""
    try:
        stat = path.stat()
        return _checked(path, stat.st_size, stat.st_mtime_ns)
    except FAULTS:
        raise Quarantine(Reason.UNREADABLE, "a damaged archive") from None


@lru_cache(maxsize=1)
def _checked(path: Path, size: int, mtime_ns: int) -> ZipFile:
    if _directory_bytes(path, size) > DIRECTORY_BYTES:
        raise Quarantine(Reason.TOO_LARGE, "an archive of too many members")
    archive = ZipFile(path)
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise Quarantine(Reason.TOO_LARGE, "an archive of too many members")
    if sum(member.compress_size for member in members) > size:
        raise Quarantine(Reason.TOO_LARGE, "an archive whose members overlap")
    if sum(member.file_size for member in members) > DENSEST * size + ALL_UNFOLDED:
        raise Quarantine(Reason.TOO_LARGE, "an archive that unfolds to too much")
    return archive


def _directory_bytes(path: Path, size: int) -> int:
    """How long an archive says that its list of members is (APPNOTE 4.3.14, 4.3.16)."""
    with path.open("rb") as file:
        file.seek(max(0, size - (1 << 16) - 128))
        tail = file.read()
    at = tail.rfind(END)
    if at < 0:
        raise BadZipFile("no end of central directory")
    short = int.from_bytes(tail[at + 12 : at + 16], "little")
    long = tail.rfind(END_64, 0, at)
    return max(short if short != 0xFFFFFFFF else 0,
               int.from_bytes(tail[long + 40 : long + 48], "little") if long >= 0 else 0)  # fmt: skip
