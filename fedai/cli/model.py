"""`fedai model`: a run's models, and their export."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fedai.cli.output import ForceOption, JsonOption, check_targets, emit, plain, table

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)
HERE = Path()
RunName = Annotated[str, typer.Argument(help="An ended run, by name or folder.", metavar="RUN")]
ModelName = Annotated[str, typer.Argument(help="federated, local:SITE, a reference, or round-0003.")]
Home = Annotated[Path, typer.Option("--home", envvar="FEDAI_SERVER_HOME", help="The server's home.")]


class Form(StrEnum):
    """What a model is exported to."""

    torchscript = "torchscript"
    onnx = "onnx"
    monai_bundle = "monai-bundle"


@app.callback()
def model() -> None:
    """Models of ended runs: list, show, export, card."""


@app.command("list")
def list_models(run: RunName, home: Home = HERE, as_json: JsonOption = False) -> None:
    """The models of a run."""
    from fedai.exports import models_of
    from fedai.record import final_words, find_run, read_record

    folder = find_run(run, home)
    found, record = models_of(folder), read_record(folder)
    rows = [(m.name, m.sha256[:12], m.facts.get("cases", ""), m.path) for m in found]
    shown = [{"model": m.name, "sha256": m.sha256, "path": str(m.path), "manifest": m.facts} for m in found]
    lines = table(("model", "SHA-256", "cases", "file"), rows) if rows else ["no model was saved"]
    told = final_words(record)
    lines += [f"federated is that of {told}"] if told else []
    emit({"models": shown, "chosen": record.get("chosen") or {}}, as_json=as_json, lines=lines)


@app.command()
def show(run: RunName, name: ModelName, home: Home = HERE, as_json: JsonOption = False) -> None:
    """What is known of a model: its file, its hash, what it was trained on."""
    from fedai.exports import find_model
    from fedai.record import find_run

    found = find_model(find_run(run, home), name)
    told: dict[str, Any] = {"model": found.name, "path": str(found.path), "sha256": found.sha256}
    told["manifest"] = found.facts
    lines = [f"{key}  {plain(value)}" for key, value in {**told, **found.facts}.items() if key != "manifest"]
    emit(told, as_json=as_json, lines=lines)


@app.command()
def export(
    run: RunName,
    name: ModelName,
    out: Annotated[Path, typer.Option(help="The file to write; of a MONAI bundle a new folder.")],
    to: Annotated[Form, typer.Option(help="The form of the file.")] = Form.torchscript,
    home: Home = HERE,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model for other software; it is loaded back and compared before the file is there."""
    from fedai.record import find_run

    if to is not Form.monai_bundle:  # a bundle's folder is never written over
        check_targets(out, force=force)
    apart = _exporter(to)(find_run(run, home), name, out)
    told = {"model": name, "form": to.value, "file": str(out), "largest_difference": apart}
    emit(told, as_json=as_json, lines=[f"{out}  scores differ by {apart:.1g} at most"])


def _exporter(to: Form) -> Callable[[Path, str, Path], float]:
    from fedai.exports import export_onnx, export_torchscript

    if to is Form.monai_bundle:
        from fedai.bundles import export_bundle

        return export_bundle
    return export_onnx if to is Form.onnx else export_torchscript


@app.command()
def card(
    run: RunName,
    name: ModelName,
    out: Annotated[Path, typer.Option(help="The Markdown file to write; its facts go beside it as .json.")],
    home: Home = HERE,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model's card: what it is and for, what it learned from, how well it does, what isn't known."""
    import json

    from fedai.model_card import card_of, markdown
    from fedai.record import find_run

    facts = out.with_suffix(".json")
    check_targets(out, facts, force=force)
    found = card_of(find_run(run, home), name)
    out.write_text(markdown(found), encoding="utf-8")
    facts.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    emit(
        {"file": str(out), "facts": str(facts), "card": found}, as_json=as_json, lines=[str(out), str(facts)]
    )
