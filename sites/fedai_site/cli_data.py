"""`fedai site add-data` and `fedai site receive`: how images come in."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedai.cli.output import JsonOption, emit, file_progress, table
from fedai_site.cli_deid import split_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedai_site.adding import Added, Chosen
    from fedai_site.home import SiteHome

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
Home = Annotated[Path, typer.Argument(help="The site's home folder.", metavar="HOME")]


@app.command("add-data")
def add_data(
    home: Home,
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder of DICOM files, however deep, or a ZIP archive.", metavar="[FOLDER]"),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV: PatientID, AccessionNumber or SOPInstanceUID; label.")
    ] = None,
    pixels: Annotated[bool, typer.Option(help="Remove text from pixels, and faces.")] = True,
    inbox: Annotated[bool, typer.Option("--inbox", help="Take what `fedai site receive` received.")] = False,
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --inbox: again and again, until stopped.")
    ] = None,
    dicomweb: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Fetch from a service of site.yaml."),
    ] = None,
    matching: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="KEY=VALUE", help="With --dicomweb, repeatable: Modality=CR ..."),
    ] = None,
    new_only: Annotated[
        bool, typer.Option("--new-only", help="With --dicomweb: nothing that came before.")
    ] = False,
    structure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=structure", help="Take outlines named so in SEG and RTSTRUCT files; repeat it."
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="processes, ray or dask.")] = "processes",
    as_json: JsonOption = False,
) -> None:
    """De-identify images into the home and label them: of a folder, the inbox or a DICOMweb service.

    Originals outside of the home are only read; a rerun continues.
    """
    from fedai.errors import ConfigError
    from fedai_site.home import open_home

    site = open_home(home)
    if (folder is not None) + inbox + (dicomweb is not None) != 1:
        raise ConfigError("give one of FOLDER, --inbox, --dicomweb NAME", hint="fedai site add-data --help")
    if (matching or new_only) and dicomweb is None:
        raise ConfigError("--filter and --new-only go with --dicomweb", hint="fedai site add-data --help")
    if every is not None and not inbox:
        raise ConfigError("--every goes with --inbox", hint="fedai site add-data --help")
    from fedai_site.masks import parse_structures

    chosen: Chosen = {"pixels": pixels, "engine": engine, "structures": parse_structures(structure or [])}
    if dicomweb is not None:
        _fetch(site, dicomweb, matching or [], new_only, labels, chosen, as_json)
    elif inbox:
        _take(site, labels, chosen, every, as_json)
    else:
        from fedai_site.adding import add_data as add

        assert folder is not None
        with file_progress() as progress:
            added = add(site.folder, folder, labels, **_with(chosen, progress))
        _check_found(added, folder)
        _tell(site, added, as_json)


def _check_found(added: Added, folder: Path) -> None:
    """Raise DataError where a folder holds no file; what a label file says is in force all the same."""
    from fedai.errors import DataError

    if not added.found:
        now = f"; {added.labelled} images that were here have a label now" if added.label_rows else ""
        hint = "give the folder of the DICOM export: is it the right one, and mounted?"
        raise DataError(f"no file was found here{now}", where=str(folder), hint=hint)


def _with(chosen: Chosen, progress: Callable[[int, int], None] | None) -> Chosen:
    return {**chosen, "progress": progress}


def _fetch(
    site: SiteHome, name: str, matching: list[str], new_only: bool, labels: Path | None, chosen: Chosen,
    as_json: bool,
) -> None:  # fmt: skip
    from fedai_site.adding import add_inbox
    from fedai_site.fetching import Fetching, service

    fetching = Fetching(site.folder, service(site.settings.dicomweb, name), matching, new_only)
    with file_progress() as progress:
        added = add_inbox(site.folder, labels, coming=fetching.coming, **_with(chosen, progress))
    fetching.check()
    _tell(site, added, as_json)


def _take(site: SiteHome, labels: Path | None, chosen: Chosen, every: float | None, as_json: bool) -> None:
    from fedai_site.adding import add_inbox
    from fedai_site.deidentify.run import AtWork
    from fedai_site.inbox import INBOX, what_waits

    with file_progress() as progress:
        added = add_inbox(site.folder, labels, **_with(chosen, progress))
    _tell(site, added, as_json)
    seen = what_waits(site.folder / INBOX)
    while every is not None:
        time.sleep(every)
        if what_waits(site.folder / INBOX) == seen:  # what is in quarantine stays
            continue
        try:
            _tell(site, add_inbox(site.folder, labels, **chosen), as_json)
        except AtWork:
            continue
        seen = what_waits(site.folder / INBOX)


def _tell(site: SiteHome, added: Added, as_json: bool) -> None:
    lines = _added_lines(added)
    lines += [f"next: fedai site deid review {site.folder}"] if added.quarantined else []
    emit(vars(added), as_json=as_json, lines=lines)


def _added_lines(added: Added) -> list[str]:
    rows = [
        ("found", added.found),
        ("de-identified", added.written),
        ("there already", added.already),
        ("duplicates", added.duplicates),
        *((f"quarantined: {reason}", count) for reason, count in added.quarantined.items()),
        *((("outlines taken over", added.masks),) if added.masks else ()),
        ("with a label", added.labelled),
        ("without a label", added.unlabelled),
        *((("with a mask", added.masked),) if added.masked else ()),
    ]
    lines = [*table(("files", "number"), rows), *split_lines(added.split_patients)]
    if added.unknown_labels:
        shown = ", ".join(map(str, added.unknown_labels[:20])) + (
            " ..." if len(added.unknown_labels) > 20 else ""
        )
        lines.append(f"{len(added.unknown_labels)} label lines belong to no usable image: line {shown}")
    return lines


@app.command()
def receive(home: Home) -> None:
    """Let the archive push images into the inbox (C-STORE), until Ctrl-C or SIGTERM."""
    from fedai.errors import ConfigError
    from fedai_site.home import open_home

    site = open_home(home)
    if site.settings.receiver is None:
        raise ConfigError("site.yaml doesn't say who may push", where=str(site.folder / "site.yaml"),
                          hint="write `receiver:` with `callers:`, the AE titles that may")  # fmt: skip
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    from fedai_site.receiver import receive as listen

    listen(site.folder, site.settings.receiver, stop, lambda text: print(text, flush=True))
