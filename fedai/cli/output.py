"""How every command speaks: lines for people, one JSON object for programs, errors with a next step."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedai.errors import ConfigError, FedaiError

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Write over a file that is there.")]


def emit(result: Mapping[str, object], *, as_json: bool, lines: Iterable[str] = ()) -> None:
    """Print `result` as one JSON object `{"ok": true, ...}`, or `lines` for a person."""
    if as_json:
        print(json.dumps({"ok": True, **result}, allow_nan=False))
    else:
        for line in lines:
            print(line)


def emit_error(error: FedaiError, *, as_json: bool) -> None:
    """Print an error: JSON on stdout `{"ok": false, "error": {...}}`, or lines on stderr."""
    if as_json:
        told = {"code": error.code, "message": error.message, "hint": error.hint, "where": error.where}
        if reason := getattr(error, "reason", ""):
            told["reason"] = reason
        print(json.dumps({"ok": False, "error": told}))
        return
    place = f"{error.where}: " if error.where else ""
    reason = f"{reason}: " if (reason := getattr(error, "reason", "")) else ""
    print(f"error: {reason}{place}{error.message}", file=sys.stderr)
    if error.hint:
        print(f"  next: {error.hint}", file=sys.stderr)


def check_targets(*files: Path, force: bool) -> None:
    """Before the work begins. Raises ConfigError where a file to be written is there (unless `force`), is a
    folder, or has no folder to lie in.
    """
    for file in files:
        if file.is_dir():
            raise ConfigError(
                f"{file} is a folder", hint="give the name of a file in it; nothing was written"
            )
        if file.exists() and not force:
            hint = "name another file, or give --force to write over this one; nothing was written"
            raise ConfigError(f"{file} is there already", hint=hint)
        if not file.absolute().parent.is_dir():
            raise ConfigError(f"there is no folder {file.parent}", hint="make it, or name another file")


def progress_line(text: str) -> None:
    """One line of progress on stderr, so that stdout stays clean for `--json`."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def file_progress() -> Iterator[Callable[[int, int], None]]:
    """To be called with (files done, files in all, or 0 where that isn't known): a bar on a terminal, a line
    every 500 files elsewhere, both on stderr.
    """
    if not sys.stderr.isatty():
        yield _tell_of_files
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("files", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _tell_of_files(done: int, total: int) -> None:
    if done % 500 == 0:
        progress_line(f"{done} of {total or '?'} files")


def plain(value: object) -> str:
    """A value as a person writes it: lists with commas, yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return "" if value is None else str(value)


def when(text: str) -> str:
    """A time of ours (ISO 8601) in UTC and to the second, with its zone; any other text as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment.tzinfo else text


def table(headings: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    """Plain aligned columns; the same on a terminal, in a pipe and in a log."""
    cells = [tuple(str(cell) for cell in row) for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
