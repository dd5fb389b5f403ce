"""`fedai site add-data`: find -> clean -> catalogue -> label.

One bad object never stops the rest, and a rerun continues.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

from fedai.errors import ConfigError
from fedai_site import intake
from fedai_site.archives import SUFFIX
from fedai_site.catalogue import Catalogue, Record, SourceFile
from fedai_site.consents import Consents
from fedai_site.deidentify.objects import Settings, deidentifier, names_of
from fedai_site.deidentify.output import Job, as_data_error
from fedai_site.deidentify.profile import BASIC, Profile
from fedai_site.deidentify.pseudonyms import Pseudonyms
from fedai_site.deidentify.run import Ran, run
from fedai_site.deidentify.state import State, Written
from fedai_site.deidentify.takeover import take
from fedai_site.home import CLEAN, DEID
from fedai_site.inbox import open_inbox
from fedai_site.labels import CONSENSUS, READER, Label, LabelRow, LabelTable, read_labels
from fedai_site.masks import Masks
from fedai_site.quarantine import Reason
from fedai_site.sources import Inbox, Source
from fedai_site.traits import VERSION, traits_of

Progress = Callable[[int, int], None]
Coming = Callable[[], Iterable[Path]]
PRIVATE = DEID


@dataclass(frozen=True)
class Added:
    """What became of a folder: found = written + already + duplicates + masks + the sum of quarantined.

    `already` were written by an earlier run. `split_patients`: see `Ran`. `labelled` counts all objects of
    the catalogue that have a label now; `unknown_labels` are the lines of the label file that no usable
    object answers to (nothing of them is kept). `masks`: files whose outlines were taken over; `masked`:
    images that have a mask now.
    """

    found: int
    written: int
    already: int
    duplicates: int
    quarantined: dict[str, int]
    split_patients: tuple[tuple[str, str], ...]
    labelled: int
    unlabelled: int
    label_rows: int
    unknown_labels: tuple[int, ...]
    masks: int = 0
    masked: int = 0


class Chosen(TypedDict, total=False):
    """How files are cleaned. `pixels`: also search them for text and remove faces from head volumes, or
    quarantine. `engine`: where: processes of this machine, ray or dask. `structures`: names in segmentations
    and structure sets -> the structures that they are here; no other name is kept.
    """

    profile: Profile
    pixels: bool
    engine: str
    processes: int | None
    progress: Progress | None
    structures: Mapping[str, str]


def add_data(home: Path, folder: Path, labels: Path | None, **chosen: Unpack[Chosen]) -> Added:
    """Clean every usable image under `folder` (or in one ZIP archive) into the site's home and label what the
    CSV names.

    Raises ConfigError (label file, missing folder or key) before any file is opened, DataError when the disk
    is full; what was done until then stays, and a rerun continues.
    """
    if not folder.is_dir() and not (folder.suffix.lower() == SUFFIX and folder.is_file()):
        what = (
            "this is no folder and no ZIP archive"
            if folder.exists()
            else "there is no such folder or archive"
        )
        raise ConfigError(what, where=str(folder), hint="give the folder of the DICOM export, or a ZIP of it")
    return _add(home, folder, None, labels, chosen)


def add_inbox(
    home: Path, labels: Path | None, *, coming: Coming | None = None, **chosen: Unpack[Chosen]
) -> Added:
    """As `add_data`, for what lies in the home's inbox and what is `coming` into it meanwhile.

    Of several contents of an object the one that came last stands. What is in the catalogue then is deleted
    from the inbox; what is in quarantine stays there, and isn't tried again before something has changed.
    """
    folder = open_inbox(home)
    return _add(home, folder, Inbox(folder.resolve(), coming), labels, chosen)


def _add(home: Path, folder: Path, source: Source | None, labels: Path | None, chosen: Chosen) -> Added:
    table = read_labels(labels) if labels else None
    profile, pixels = chosen.get("profile", BASIC), chosen.get("pixels", False)
    engine, processes = chosen.get("engine", "processes"), chosen.get("processes")
    settings = Settings(profile, home / "keys" / "pseudonym.key", pixels=pixels, faces=pixels)
    names = names_of(settings)
    look = partial(intake.look, names)
    with Consents(home) as consents:
        barred = consents.barred()
    job = Job(
        folder, home / CLEAN, home / PRIVATE, settings, look=look, looked=VERSION, skip=(home,), unique=True,
        barred=barred, newest=source is not None,
    )  # fmt: skip
    try:
        with Catalogue(home / "catalogue.sqlite") as catalogue:
            catalogue.use_key(names.key_id)
            progress = chosen.get("progress")
            last = partial(take, home, deidentifier(settings), chosen.get("structures", {}), barred)
            ran = run(job, source=source, engine=engine, processes=processes, progress=progress, last=last)
            with State(job.private) as state:
                state.conceal(str(Reason.WITHDRAWN), lambda path: names.label_key("path", str(path)))
                recatalogue(catalogue, state)
            unknown = _add_labels(catalogue, names, table) if table else ()
            has_label = catalogue.count_labelled()
        with Masks(home / "catalogue.sqlite") as known:
            masked = len(known.all())
    except (OSError, sqlite3.OperationalError) as error:
        raise as_data_error(error) from error
    return _added(ran, has_label, len(table.rows) if table else 0, unknown, masked)


def _added(
    ran: Ran, has_label: Mapping[bool, int], rows: int, unknown: tuple[int, ...], masked: int
) -> Added:
    return Added(
        found=ran.found,
        written=ran.written,
        already=ran.already,
        duplicates=ran.duplicates,
        quarantined=ran.quarantined,
        split_patients=ran.split_patients,
        labelled=has_label.get(True, 0),
        unlabelled=has_label.get(False, 0),
        label_rows=rows,
        unknown_labels=unknown,
        masks=ran.masks,
        masked=masked,
    )


def recatalogue(catalogue: Catalogue, state: State) -> None:
    """Make the catalogue say what the private state of the cleaning says."""
    catalogue.replace(_records(state), _sources(state))


def _records(state: State) -> Iterator[Record]:
    """What the catalogue keeps of each clean file."""
    return map(_record, state.objects())


def _record(written: Written) -> Record:
    facts, evidence = json.loads(written.facts), json.loads(written.evidence)
    return Record(
        id=written.instance,
        patient=written.patient,
        study=written.study,
        modality=facts["modality"],
        path=f"{CLEAN}/{written.path}",
        sha256=evidence["output_sha256"],
        bytes=written.bytes,
        mtime_ns=written.mtime_ns,
        patient_key=facts["PatientID"],
        accession_key=facts["AccessionNumber"],
        object_key=facts["SOPInstanceUID"],
        evidence=written.evidence,
        traits=traits_of(facts),
    )


def _sources(state: State) -> Iterator[SourceFile]:
    return (SourceFile(source.path, source.state) for source in state.sources())


def _add_labels(catalogue: Catalogue, names: Pseudonyms, table: LabelTable) -> tuple[int, ...]:
    keyed = [(names.label_key(table.kind, row.key), row) for row in table.rows]
    known = [catalogue.has_key(table.kind, key) for key, _ in keyed]
    pairs = list(zip(keyed, known, strict=True))
    labels = [_label(names, key, row) for (key, row), there in pairs if there]
    labels.sort(key=lambda label: label.source == CONSENSUS)
    catalogue.set_labels(table.kind, labels)
    return tuple(row.line for (_, row), there in pairs if not there)


def _label(names: Pseudonyms, key: str, row: LabelRow) -> Label:
    """Of a file's lines for one key the last one counts, but a consensus before all others."""
    reader = f"r{names.label_key(READER, row.reader)[:12]}" if row.reader else ""
    return Label(key, row.label, reader, row.source)
