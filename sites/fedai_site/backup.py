"""`fedai site backup | restore`: catalogue, consents, splits, ledger, approvals, keys: what can't be made
again.

Clean files and caches aren't in it: `add-data` makes them anew from the archive, with the same pseudonyms.
Nor are the bytes that left. A backup is a tar file with a manifest of hashes, readable by its owner alone;
it holds the site's keys, so it is to be kept as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedai.errors import ConfigError, DataError, check_there
from fedai_site.catalogue import SCHEMA_VERSION, Catalogue
from fedai_site.deidentify.pseudonyms import load_secret
from fedai_site.home import SiteHome, open_home
from fedai_site.witness import verify

MANIFEST = "MANIFEST.json"
FORM = 1
DATABASES = ("catalogue.sqlite", "deid/state.sqlite")
LEDGER, HEADS = "ledger.jsonl", "ledger.heads.jsonl"
OF_ITS_NAMES = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
FILES = (
    "site.yaml", "policy.yaml", "*.pem", "keys/*", "approvals/**/*", "requests/*", "receipts/*",
    "runs/asked/*", "runs/spent/*", "runs/*/run-id",
)  # fmt: skip


def back_up(home: SiteHome, target: Path) -> dict[str, Any]:
    """Write the backup; the agent may be running. Gives the manifest.

    Raises ConfigError where `target` exists or lies in the home.
    """
    if target.exists() or target.resolve().is_relative_to(home.folder.resolve()):
        raise ConfigError(f"{target} exists or is in the home", hint="name a new file elsewhere")
    facts = {"form": FORM, "site": home.settings.name, "schema": SCHEMA_VERSION}
    manifest: dict[str, Any] = {
        **facts,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {},
    }
    with _beside(target, ".backup-") as aside:
        partial = aside / "backup.tar"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                for name, path in _contents(home.folder, aside):
                    manifest["files"][name] = _hash(path)
                    archive.add(path, name, recursive=False)
                (aside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
                archive.add(aside / MANIFEST, MANIFEST)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(target)
    return manifest


@contextmanager
def _beside(target: Path, prefix: str) -> Iterator[Path]:
    """A folder beside `target` for what becomes it; an error of the system is told of `target`."""
    try:
        with TemporaryDirectory(prefix=prefix, dir=target.resolve().parent) as folder:
            yield Path(folder)
    except OSError as error:
        if error.filename is None or prefix in str(error.filename):
            error.filename, error.filename2 = str(target), None
        raise


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _contents(folder: Path, aside: Path) -> Iterator[tuple[str, Path]]:
    """What goes in; what others may be writing to meanwhile as a copy, whole."""
    for name in filter(lambda name: (folder / name).exists(), DATABASES):
        copy = aside / name.replace("/", "-")
        with (
            closing(sqlite3.connect(folder / name, timeout=30)) as source,
            closing(sqlite3.connect(copy)) as to,
        ):
            source.backup(to)
        yield name, copy
    if (folder / LEDGER).exists():
        yield from _ledger(folder, aside)
    for pattern in FILES:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not path.is_symlink() and path.suffix != ".partial":
                yield path.relative_to(folder).as_posix(), path


def _ledger(folder: Path, aside: Path) -> Iterator[tuple[str, Path]]:
    """Whole lines, and the heads of these alone."""
    data = (folder / LEDGER).read_bytes()
    data = data[: data.rfind(b"\n") + 1]
    (aside / LEDGER).write_bytes(data)
    yield LEDGER, aside / LEDGER
    if (folder / HEADS).exists():
        lines, heads = data.count(b"\n"), (folder / HEADS).read_bytes().splitlines(keepends=True)
        whole = [head for head in heads if head.endswith(b"\n") and json.loads(head)["lines"] <= lines]
        (aside / HEADS).write_bytes(b"".join(whole))
        yield HEADS, aside / HEADS


def restore(source: Path, folder: Path) -> SiteHome:
    """Make a home from a backup, in a folder that isn't there yet.

    Raises ConfigError where it is, or where there is no backup; DataError for a file that is no whole one;
    then nothing is left of it.
    """
    check_there(source, "give a file that `fedai site backup` wrote")
    if folder.exists():
        raise ConfigError(f"{folder} exists", hint="restore into a new folder")
    with _beside(folder, ".restore-") as aside:
        made = aside / "home"
        made.mkdir(mode=0o700)
        _unpack(source, made)
        for part in ("keys", "approvals", "clean", "cache", "runs"):
            (made / part).mkdir(exist_ok=True, mode=0o700)
        _check(made)
        shutil.move(made, folder)
    return open_home(folder)


def _unpack(source: Path, folder: Path) -> None:
    try:
        with tarfile.open(source, mode="r:") as archive:
            for member in archive:
                target, content = folder / member.name, archive.extractfile(member)
                if not member.isfile() or content is None or not _is_below(target, folder):
                    raise _no_backup(source, "there is something else in it than files of a home")
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with target.open("xb") as file:
                    shutil.copyfileobj(content, file)
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = dict(manifest["files"])
    except (tarfile.TarError, KeyError, ValueError, TypeError, RecursionError, *OF_ITS_NAMES):
        raise _no_backup(source, "it is no backup of a home, or isn't whole") from None
    if manifest.get("form") != FORM:
        raise _no_backup(source, "another release made it")
    (folder / MANIFEST).unlink()
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    if {name: _hash(path) for name, path in found.items()} != files:
        raise _no_backup(source, "a file in it isn't what the manifest says")
    for path in found.values():
        path.chmod(0o600)


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _check(folder: Path) -> None:
    """Databases, ledger and pseudonym key are whole; what the witness knows is for `fedai site ledger
    verify`.
    """
    home = open_home(folder)
    try:
        for name in filter(lambda name: (folder / name).exists(), DATABASES):
            with closing(sqlite3.connect(folder / name)) as database:
                if database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                    raise DataError("a database in the backup is damaged", where=name)
        with Catalogue(folder / "catalogue.sqlite"):
            pass
    except sqlite3.DatabaseError:
        raise DataError("a database in the backup is damaged", where=str(folder)) from None
    verify(replace(home, settings=home.settings.model_copy(update={"witness": None})))
    load_secret(home.pseudonym_key)


def _no_backup(source: Path, what: str) -> DataError:
    return DataError(what, where=str(source), hint="take another backup")
