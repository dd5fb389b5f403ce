"""`fedai study`: check a study file, show it whole with its hash, sign it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedai.cli.output import JsonOption, emit

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False,
                  help="Check, show and sign a study file; make keys.")  # fmt: skip
StudyFile = Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")]


@app.command()
def check(
    study: StudyFile,
    build: Annotated[bool, typer.Option("--build", help="Also build the network (imports torch).")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether a study is sound: every problem at once, with its line and column."""
    from fedai.study import read_study

    read = read_study(study)
    size = ""
    if build:
        from fedai.tasks.classification import build_network
        from fedai.weights import layout_of

        size = f", {layout_of(build_network(read)).sizes()['parameters']:,} parameters"
    lines = [f"{read.name} version {read.version} is sound{size}", f"hash {read.sha256}"]
    told = {"study": read.name, "version": read.version, "study_hash": read.sha256, "notes": read.notes}
    emit(told, as_json=as_json, lines=lines + [f"note: {note}" for note in read.notes])


@app.command()
def show(study: StudyFile, as_json: JsonOption = False) -> None:
    """The study with every default written out: what is hashed, approved and sent."""
    import yaml

    from fedai.study import read_study

    read = read_study(study)
    whole = json.loads(read.canonical())
    lines = [f"# hash {read.sha256}", yaml.safe_dump(whole, sort_keys=False, allow_unicode=True).rstrip()]
    emit({"study_hash": read.sha256, "study": whole}, as_json=as_json, lines=lines)


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="A new file for the private key.", metavar="KEY")],
    as_json: JsonOption = False,
) -> None:
    """Make a key to sign studies or approvals with: KEY for you alone, KEY.pub for others."""
    from fedai.signatures import fingerprint, write_key

    public = write_key(file)
    told = {"key": str(file), "public_key": f"{file}.pub", "fingerprint": fingerprint(public)}
    lines = [
        f"key  {file}",
        f"sha256 {told['fingerprint']}",
        "next: read the fingerprint to the sites by telephone",
    ]
    emit(told, as_json=as_json, lines=lines)


@app.command()
def sign(
    study: StudyFile,
    key: Annotated[Path, typer.Option(help="The private key, from `fedai study key`.", metavar="KEY")],
    as_json: JsonOption = False,
) -> None:
    """Sign a study's content hash; the signature goes to STUDY.sig, beside the study."""
    from fedai.signatures import fingerprint, sign_study, signature_file
    from fedai.study import read_study

    read = read_study(study)
    made = sign_study(study, read.sha256, key)
    told = {
        "study_hash": read.sha256,
        "signature": str(signature_file(study)),
        "fingerprint": fingerprint(made.key),
    }
    lines = [
        f"signed {read.name} version {read.version}",
        f"hash   {read.sha256}",
        f"sha256 {told['fingerprint']}",
        f"next: send {study.name} and {signature_file(study).name} to the sites",
    ]
    emit(told, as_json=as_json, lines=lines)
