"""`fedai site consent`: what patients allow, and what happens when one takes it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedai.cli.output import JsonOption, emit, table

if TYPE_CHECKING:
    from fedai_site.home import SiteHome

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What patients allow: import, list, withdraw; what their cases were used for.",
)
Home = Annotated[Path, typer.Argument(help="The site's home folder.", metavar="HOME")]


@app.command("import")
def import_file(
    home: Home,
    file: Annotated[
        Path,
        typer.Argument(help="CSV: PatientID or pseudonym; basis, scope, expires, reference.", metavar="FILE"),
    ],
    renew: Annotated[
        bool, typer.Option("--renew", help="Patients who withdrew have given a new consent.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Store who may be used for what; a newer line takes the place of an older one. All lines, or none."""
    from fedai_site.home import open_home
    from fedai_site.rights import import_consents

    done = import_consents(open_home(home), file, renew=renew)
    lines = [f"{done.stored} records stored"]
    lines += [f"{done.renewed} withdrawals ended"] if done.renewed else []
    lines += _of_lines(done.unknown, "are of patients without an image here; kept until one comes")
    lines += _of_lines(
        done.ambiguous, "are of a PatientID that several patients answer to: they count for none"
    )
    emit(vars(done), as_json=as_json, lines=lines)


def _of_lines(numbers: tuple[int, ...], what: str) -> list[str]:
    shown = ", ".join(map(str, numbers[:20])) + (" ..." if len(numbers) > 20 else "")
    return [f"{len(numbers)} lines {what}: line {shown}"] if numbers else []


@app.command()
def withdraw(
    home: Home,
    pseudonyms: Annotated[
        list[str] | None, typer.Argument(help="Who withdraws.", metavar="PSEUDONYM...")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--from", help="CSV with a column PatientID or pseudonym.", metavar="FILE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take patients out of use before the next batch, delete what there is of them, and issue receipts."""
    from fedai.errors import ConfigError
    from fedai_site.home import open_home

    if not pseudonyms and file is None:
        raise ConfigError("who withdraws?", hint="give pseudonyms, or --from FILE with a column PatientID")
    from fedai_site.erasure import catch_up
    from fedai_site.erasure import withdraw as carry_out
    from fedai_site.rights import find_patients

    site = open_home(home)
    catch_up(site)
    before = set(site.receipts.glob("*.json"))
    paths = carry_out(site, find_patients(site, pseudonyms or [], file))
    receipts = [{"file": str(path), "made_before": path in before, **_facts(path)} for path in paths]
    lines = [line for receipt in receipts for line in _receipt_lines(receipt)]
    emit({"receipts": receipts}, as_json=as_json, lines=lines)


def _facts(path: Path) -> dict[str, Any]:
    import json

    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def _receipt_lines(facts: dict[str, Any]) -> list[str]:
    if facts.get("made_before"):
        return [
            f"{facts['patient']} had withdrawn {facts['withdrawn_at']}; nothing more of them was found",
            f"  receipt   {facts['file']}  (of the deletion then)",
        ]
    deleted = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in facts["deleted"].items())
    searched = facts["searched"]
    lines = [
        f"{facts['patient']} withdrew {facts['withdrawn_at']}",
        f"  deleted   {deleted}",
        f"  searched  {searched['files']} files, {searched['bytes']:,} bytes: nothing left",
        f"  used in   {', '.join(facts['used_in']) or 'no run'}",
        f"  models    {facts['models']}",
    ]
    same, unknown = facts["same_content_in_files_of_others"], facts["pictures_of_unknown_patients"]
    lines += [f"  look at   {same} files of other patients hold the same content"] if same else []
    lines += [f"  look at   {unknown} review pictures: whose? their originals are gone"] if unknown else []
    return [*lines, *([f"  receipt   {facts['file']}"] if "file" in facts else [])]


@app.command("list")
def list_all(home: Home, as_json: JsonOption = False) -> None:
    """Every patient that has an image, a record or a withdrawal here, and what is allowed."""
    from fedai_site.home import open_home

    rows = _rows(open_home(home))
    headings = ("patient", "images", "basis", "scope", "expires", "reference", "state")
    shown = [tuple(row[name] for name in headings) for row in rows]
    emit({"patients": rows}, as_json=as_json, lines=table(headings, shown) if rows else ["no patient yet"])


def _rows(site: SiteHome) -> list[dict[str, Any]]:
    from fedai_site.consents import PSEUDONYM, Consents

    with Consents(site.folder) as consents:
        images, records = consents.images(), consents.records()
        waiting = [one for one in consents.consents() if one not in records.values()]
        withdrawals = consents.withdrawals()
    gone = {one.patient for one in withdrawals}
    rows = [
        _row(one.patient or f"key {one.patient_key}", images, None, _withdrawn(one)) for one in withdrawals
    ]
    there = {patient: records.get(patient) for patient in images if patient not in gone}
    rows += [_row(patient, images, one, _state(one)) for patient, one in there.items()]
    names = [(one, one.key if one.kind == PSEUDONYM else f"key {one.key}") for one in waiting]
    why = "of no image, of several patients, or replaced"
    return rows + [_row(name, {}, one, why) for one, name in names]


def _row(patient: str, images: dict[str, int], record: Any, state: str) -> dict[str, Any]:
    said = {name: getattr(record, name, "") for name in ("basis", "scope", "expires", "reference")}
    return {"patient": patient, "images": images.get(patient, 0), **said, "state": state}


def _withdrawn(withdrawal: Any) -> str:
    return f"withdrawn {withdrawal.at}" + ("" if withdrawal.receipt else ", not deleted yet: withdraw again")


def _state(record: Any) -> str:
    from datetime import date

    if record is None:
        return "no record"
    return "expired" if record.expires and record.expires < date.today().isoformat() else "on record"


@app.command()
def influence(
    home: Home,
    pseudonym: Annotated[str, typer.Argument(help="The patient.", metavar="PSEUDONYM")],
    as_json: JsonOption = False,
) -> None:
    """Each run and round that used a patient's cases. Models made of them are not unlearned."""
    from fedai.errors import ConfigError
    from fedai_site.consentfile import PSEUDONYM_PATTERN
    from fedai_site.home import open_home
    from fedai_site.influence import NOT_UNLEARNED, uses_of

    if not PSEUDONYM_PATTERN.fullmatch(pseudonym):
        raise ConfigError("this is no pseudonym", hint="`fedai site consent list HOME` has them")
    uses = uses_of(open_home(home).catalogue, pseudonym)
    headings = ("run", "task", "round", "model", "cases", "came", "at")
    rows = [(use.run, use.task, use.round, use.model, _cases(use.cases), use.came, use.at) for use in uses]
    lines = [*table(headings, rows), NOT_UNLEARNED] if uses else ["no run has used this patient's cases"]
    facts = {"patient": pseudonym, "uses": [vars(use) for use in uses], "models": NOT_UNLEARNED}
    emit(facts, as_json=as_json, lines=lines)


def _cases(cases: Any) -> str:
    return ", ".join(f"{count} {split}" for split, count in cases.items())


@app.command()
def verify(
    receipt: Annotated[Path, typer.Argument(help="A receipt of a withdrawal.", metavar="RECEIPT")],
    key: Annotated[
        Path | None, typer.Option(help="The site's receipts.pub; default: of the home that it lies in.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that a receipt is, byte for byte, what the site signed."""
    from fedai_site import receipts

    facts = receipts.verify(receipt, key or receipts.key_beside(receipt))
    emit(facts, as_json=as_json, lines=["the signature holds", *_receipt_lines(facts)])
