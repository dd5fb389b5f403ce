"""Where originals come from. Each way in is a `Source`: paths, one after the other, however many there are.

A path is that of a file, or leads into an archive (see archives.py). Links are not followed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedai_site import inbox
from fedai_site.archives import with_members
from fedai_site.deidentify.directory import listed_files

DIRECTORY = "DICOMDIR"


class Source(Protocol):
    """A way in. `release` hears which originals aren't needed any more, with the times they were changed."""

    def paths(self) -> Iterator[Path]:
        """Each original's path; some may come twice."""
        ...

    def count(self) -> int:
        """How many there are, 0 where that isn't known beforehand."""
        ...

    def release(self, originals: Sequence[tuple[Path, int]]) -> None:
        """These are cleaned, or stand under another object: all of it is written."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder however deep, or one file; `skip` are folders that are none of the export's. Only read.

    Also gives the files that a media directory (DICOMDIR) lists and that aren't there, so that a partial copy
    is noticed, and folders that can't be listed.
    """

    top: Path
    skip: tuple[Path, ...] = ()

    def paths(self) -> Iterator[Path]:
        """Sorted within each folder."""
        if any(self.top.is_relative_to(own) for own in self.skip):
            return
        if self.top.is_file():
            yield from with_members(self.top)
        else:
            yield from self._under(self.top)

    def _under(self, folder: Path) -> Iterator[Path]:
        if folder in self.skip:
            return
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208  names alone: they are many
        except OSError:
            yield folder
            return
        for path in (folder / name for name in names):
            if path.is_symlink():
                continue
            if path.is_dir():
                yield from self._under(path)
            elif path.is_file():
                yield from with_members(path)
                if path.name.upper() == DIRECTORY:
                    yield from _missing(path)

    def count(self) -> int:
        """By walking through it once."""
        return sum(1 for _ in self.paths())

    def release(self, originals: Sequence[tuple[Path, int]]) -> None:
        """The originals stay where they are."""


def _missing(directory: Path) -> Iterator[Path]:
    """What a media directory lists and isn't there, in capitals as listed or in small letters."""
    for parts in listed_files(directory):
        names = (directory.parent.joinpath(*parts), directory.parent.joinpath(*map(str.lower, parts)))
        if not any(path.exists() for path in names):
            yield names[0]


@dataclass(frozen=True)
class Inbox:
    """The home's inbox, and what comes into it meanwhile; originals go when they aren't needed any more."""

    folder: Path
    coming: Callable[[], Iterable[Path]] | None = None

    def paths(self) -> Iterator[Path]:
        """Those that wait, then those that come."""
        yield from inbox.waiting(self.folder)
        if self.coming:
            yield from self.coming()

    def count(self) -> int:
        """How many wait; 0 where more are coming."""
        return 0 if self.coming else sum(1 for _ in inbox.waiting(self.folder))

    def release(self, originals: Sequence[tuple[Path, int]]) -> None:
        """Delete them."""
        inbox.release(originals)
