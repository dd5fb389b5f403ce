"""`fedai site deid`: de-identification by itself, without a federation."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedai.cli.output import JsonOption, emit, file_progress, table

if TYPE_CHECKING:
    from fedai_site.deidentify.output import Job
    from fedai_site.deidentify.run import Ran

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="De-identify a folder of DICOM, with evidence; explain, verify and review it.",
)
vault_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Random tokens; the way back takes two persons.",
)
app.add_typer(vault_app, name="vault")

Out = Annotated[Path, typer.Argument(help="The folder of clean files.", metavar="OUT")]
Private = Annotated[
    Path | None, typer.Option(help="Folder for what must not leave; default: OUT.private beside OUT.")
]
ProfileOption = Annotated[
    str, typer.Option(help="basic, basic+OPTION..., or a profile file.", metavar="FILE|basic|basic+OPTION...")
]
VaultFolder = Annotated[Path, typer.Argument(help="The vault's folder.", metavar="VAULT")]
LOGGED = ("time", "pseudonym", "persons", "reason", "refused")
Shares = Annotated[list[Path], typer.Option(help="A person's share; give two.")]


@app.command()
def run(
    source: Annotated[Path, typer.Argument(help="A folder of DICOM files, however deep.", metavar="IN")],
    out: Out,
    profile: ProfileOption = "basic",
    keep_names: Annotated[bool, typer.Option("--keep-names", help="Mirror the names of IN's files.")] = False,
    key: Annotated[
        Path | None, typer.Option(help="The pseudonym key; made if it isn't there. Default: PRIVATE's own.")
    ] = None,
    vault: Annotated[Path | None, typer.Option(help="A vault for random tokens instead of a key.")] = None,
    project: Annotated[str, typer.Option(help="Other pseudonyms for another project of the site.")] = "",
    private: Private = None,
    pixels: Annotated[bool, typer.Option(help="Search pixels for text and remove it.")] = True,
    faces: Annotated[bool, typer.Option(help="Remove faces from head volumes.")] = True,
    board_decision: Annotated[str, typer.Option(help="The review board's number if faces stay.")] = "",
    processes: Annotated[int | None, typer.Option(min=1, help="Default: one per core.")] = None,
    engine: Annotated[str, typer.Option(help="processes, ray or dask.")] = "processes",
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete OUT's clean files and do all anew.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Clean every DICOM file under IN into OUT. The originals are only read; a rerun continues.

    An OUT that holds files under another key, vault, project or profile is refused.
    """
    from fedai_site.deidentify.objects import Settings
    from fedai_site.deidentify.output import Job
    from fedai_site.deidentify.profile import load_profile
    from fedai_site.deidentify.run import prepare
    from fedai_site.deidentify.run import run as run_job

    settings = Settings(load_profile(profile), key, vault, project, pixels, faces, board_decision)
    folder, key = prepare(source, out, private, settings, restart=restart)
    job = Job(source, out, folder, _with_key(settings, key), keep_names)
    with file_progress() as progress:
        ran = run_job(job, engine=engine, processes=processes, progress=progress, restart=restart)
    emit(_facts(ran, job), as_json=as_json, lines=_lines(ran, job))


def _with_key(settings: Any, key: Path | None) -> Any:
    from dataclasses import replace

    return replace(settings, key=key)


def _facts(ran: Ran, job: Job) -> dict[str, Any]:
    settings = job.settings
    return {
        **vars(ran),
        "evidence": str(ran.evidence),
        "out": str(job.out),
        "private": str(job.private),
        "profile": settings.profile.name,
        "options": sorted(settings.profile.options),
        "dates": settings.profile.dates,
        "pixels": settings.pixels,
        "faces": settings.faces,
    }


def _lines(ran: Ran, job: Job) -> list[str]:
    rows = [
        ("found", ran.found),
        ("written", ran.written),
        ("there already", ran.already),
        ("duplicates", ran.duplicates),
        *((f"quarantined: {reason}", count) for reason, count in ran.quarantined.items()),
    ]
    lines = table(("files", "number"), rows)
    if ran.reused_uids:
        lines.append(
            f"warning: {ran.reused_uids} clean files share a SOP Instance UID with another patient's"
        )
    lines.append(
        f"pixels changed: text blanked in {ran.text_blanked}, face removed from {ran.faces_removed} files"
    )
    lines += split_lines(ran.split_patients)
    if ran.restored:
        lines.append(
            f"warning: {ran.restored} clean files were gone or had been changed; they were made anew"
        )
    if ran.stale:
        shown = ", ".join(ran.stale[:3]) + (", ..." if len(ran.stale) > 3 else "")
        lines.append(f"warning: {len(ran.stale)} clean files are of another key or other settings: {shown}")
        lines.append("         their originals weren't in this run; --restart deletes them")
    lines.append(f"clean     {job.out}")
    lines.append(f"evidence  {ran.evidence}")
    lines.append(f"private   {job.private}  (key, pictures, source paths: keep it here)")
    if ran.quarantined:
        lines.append(f"next: fedai site deid review {job.out}")
    return [*lines, f"then: fedai site deid verify {job.out}"]


def split_lines(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """A warning about PatientIDs that came with and without an issuer."""
    if not pairs:
        return []
    return [
        f"warning: {len(pairs)} PatientIDs came with and without an issuer, and have two pseudonyms each:",
        *(f"         {one} {other}" for one, other in pairs[:3]),
        "         if they are the same persons, let the archive export all with the issuer, or all without",
    ]


@app.command()
def explain(
    file: Annotated[Path, typer.Argument(help="A DICOM file.", metavar="FILE")],
    profile: ProfileOption = "basic",
    as_json: JsonOption = False,
) -> None:
    """What will happen to each attribute of a file, by which rule and why. Values are never shown."""
    from dataclasses import asdict

    from fedai.errors import ConfigError
    from fedai_site.deidentify.explain import explain as explain_dataset
    from fedai_site.deidentify.profile import load_profile
    from fedai_site.deidentify.reading import parse

    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(error.strerror or "can't be read", where=str(file)) from None
    chosen = load_profile(profile)
    told = [asdict(line) for line in explain_dataset(parse(data), chosen)]
    rows = [tuple(str(value) for value in line.values()) for line in told]
    headings = tuple(told[0]) if told else ("attributes",)
    emit({"profile": chosen.name, "attributes": told}, as_json=as_json, lines=table(headings, rows))


@app.command()
def verify(
    out: Out,
    known: Annotated[
        Path | None, typer.Option(help="CSV of names, numbers, dates that must not be found.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for the adequacy report.")] = None,
    key_id: Annotated[
        str, typer.Option(help="The key's id, as `run` tells it: files of another are named.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Read OUT's bytes again with an independent reader. Ends with 1 if anything identifying is found."""
    from fedai_site.verification import summary, summary_lines, write_report
    from fedai_site.verification import verify as verify_folder

    findings = verify_folder(out, known, workers=os.cpu_count() or 1, key_id=key_id)
    written = write_report(findings, report) if report else ()
    facts = {**summary(findings), "report": [str(path) for path in written]}
    emit(facts, as_json=as_json, lines=[*summary_lines(findings), *(f"report  {path}" for path in written)])
    if not findings.ok:
        raise typer.Exit(1)


@app.command()
def review(
    out: Out,
    private: Annotated[
        Path | None,
        typer.Option(help="Folder for what must not leave; default: OUT.private, of a home its deid."),
    ] = None,
    item: Annotated[str, typer.Option(help="The item's number, as the list shows it.")] = "",
    decide: Annotated[str, typer.Option(help="release or refuse.")] = "",
    by: Annotated[str, typer.Option(help="Who decides.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    as_json: JsonOption = False,
) -> None:
    """What is in quarantine, why, and what would free it; on a terminal, decide one by one.

    OUT may also be a site's home, whose quarantine is that of add-data.
    """
    from fedai.errors import ConfigError
    from fedai_site.deidentify.review import decide as decide_item
    from fedai_site.deidentify.review import listed, walk

    folder = private or _private_of(out)
    if decide and not item:
        raise ConfigError("which item?", hint="give its number with --item, as the list shows it")
    if item and decide:
        made = decide_item(folder, item, decide, by=by or getpass.getuser(), reason=reason)
        emit(made, as_json=as_json, lines=[f"{item}: {decide}; the next run acts on it"])
        return
    items = [one for one in listed(folder) if str(one["item"]).startswith(item)]
    if item and not items:
        raise ConfigError(
            f"no item's number begins with {item}", hint="numbers are in the list, without --item"
        )
    if not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        walk(folder, items, by=by or getpass.getuser())
        return
    columns = ("item", "reason", "words", "frees", "decision")
    rows = [tuple(str(entry[column]) for column in columns) for entry in items]
    headings = ("item", "reason", "the object", "what would free it", "decision")
    lines = table(headings, rows) if rows else ["quarantine is empty"]
    emit({"items": items}, as_json=as_json, lines=lines)


def _private_of(out: Path) -> Path:
    """Where the run that wrote OUT keeps what must not leave; OUT may be a site's home, or its `clean`."""
    from fedai_site.home import CLEAN, DEID

    home = out.absolute().parent if out.name == CLEAN else out
    return home / DEID if (home / "site.yaml").is_file() else out.with_name(f"{out.name}.private")


@app.command()
def bench(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files.", metavar="IN")],
    profile: ProfileOption = "basic",
    files: Annotated[int, typer.Option(min=1, help="At most so many.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """Files per second on your own files, in one process, beside a plain pydicom copy in the same run."""
    from fedai_site.deidentify.measure import measure
    from fedai_site.deidentify.profile import load_profile

    measured = measure(folder, load_profile(profile), files)
    rows = [(name, value) for name, value in measured.items()]
    emit(measured, as_json=as_json, lines=table(("what", "number"), rows))


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="The key file.", metavar="KEY")],
    rotate: Annotated[bool, typer.Option("--rotate", help="A new key; the old one is kept.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a pseudonym key, or take a new one: from then on every patient has another pseudonym."""
    from fedai_site.deidentify.pseudonyms import Pseudonyms, create_secret, load_secret, rotate_secret

    old = rotate_secret(file) if rotate else None
    if old is None and not file.exists():
        create_secret(file)
    key_id = Pseudonyms(load_secret(file)).key_id
    lines = [f"key  {file}  ({key_id})", *([f"old  {old}"] if old else [])]
    emit({"key": str(file), "key_id": key_id, "old": str(old) if old else None}, as_json=as_json, lines=lines)


@vault_app.command("create")
def vault_create(vault: VaultFolder, share: Shares, as_json: JsonOption = False) -> None:
    """Make a vault. The two share files open it together: give each to one person, and keep none here."""
    from fedai_site.deidentify.vault import Vault, create_vault

    create_vault(vault, _two(share))
    shares = [str(path) for path in share]
    lines = [f"vault  {vault}", *(f"share  {path}  (move it to its person)" for path in shares)]
    emit({"vault": str(vault), "vault_id": Vault(vault).id, "shares": shares}, as_json=as_json, lines=lines)


def _two(paths: list[Path]) -> tuple[Path, Path]:
    from fedai.errors import ConfigError

    if len(paths) != 2 or paths[0] == paths[1]:
        raise ConfigError("two shares are needed", hint="--share A.share --share B.share")
    return paths[0], paths[1]


@vault_app.command("reidentify")
def vault_reidentify(
    vault: VaultFolder,
    pseudonym: Annotated[str, typer.Argument(help="A patient's pseudonym.", metavar="PSEUDONYM")],
    share: Shares,
    by: Annotated[list[str], typer.Option(help="Who asks; give two names.")],
    reason: Annotated[str, typer.Option(help="Why; it is logged.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Who a pseudonym is. Needs a reason, two persons and both shares; it is logged, refusals too."""
    from fedai_site.deidentify.vault import reidentify

    persons = (by[0], by[1]) if len(by) == 2 else ("", "")
    parts = reidentify(vault, pseudonym, _two(share), reason=reason, persons=persons)
    emit({"identifiers": parts}, as_json=as_json, lines=parts)


@vault_app.command("log")
def vault_log(
    vault: VaultFolder,
    begin_anew: Annotated[
        bool, typer.Option("--begin-anew", help="Put a log that doesn't check aside and begin another.")
    ] = False,
    share: Annotated[list[Path] | None, typer.Option(help="For --begin-anew: both shares.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="For --begin-anew: two names.")] = None,
    reason: Annotated[str, typer.Option(help="For --begin-anew: what became of the log.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Each look back, the oldest first, after the log was checked; refused where it was changed or cut."""
    from fedai_site.deidentify import vaultlog
    from fedai_site.deidentify.vault import Vault
    from fedai_site.deidentify.vault import begin_anew as begin

    if begin_anew:
        persons = (by[0], by[1]) if by and len(by) == 2 else ("", "")
        aside = begin(vault, _two(share or []), reason=reason, persons=persons)
        emit(
            {"aside": aside},
            as_json=as_json,
            lines=[f"a new log; what is left of the old: {aside or 'nothing'}"],
        )
        return
    Vault(vault)
    entries = vaultlog.check(vault)
    rows = [tuple(str(entry.get(key, "")) for key in LOGGED) for entry in entries]
    emit(
        {"entries": entries},
        as_json=as_json,
        lines=table(LOGGED, rows) if rows else ["nobody has looked back"],
    )


@vault_app.command("destroy")
def vault_destroy(
    vault: VaultFolder,
    yes: Annotated[bool, typer.Option("--yes", help="Really; there is no way back.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete the vault's keys and tokens for good; its log stays."""
    from fedai.errors import ConfigError
    from fedai_site.deidentify.vault import destroy

    if not yes:
        raise ConfigError("nothing was destroyed", hint="add --yes; there is no way back")
    destroy(vault)
    emit({"destroyed": str(vault)}, as_json=as_json, lines=[f"destroyed {vault}; its log stays"])
