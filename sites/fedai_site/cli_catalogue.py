"""`fedai site data list | show | check | stats`: what the site has, for its engineer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedai.cli.output import JsonOption, emit, table

if TYPE_CHECKING:
    from fedai_site.catalogue import LabelledObject
    from fedai_site.labels import Reading

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What this site has: patients, images, what is odd."
)
Home = Annotated[Path, typer.Argument(help="The site's home folder.", metavar="HOME")]
SHOWN = 20


def _entries(home: Path) -> list[LabelledObject]:
    from fedai_site.catalogue import Catalogue
    from fedai_site.home import open_home

    with Catalogue(open_home(home).catalogue) as catalogue:
        return catalogue.labelled()


@app.command("list")
def list_patients(
    home: Home,
    limit: Annotated[int, typer.Option(help="Most patients shown; 0 for all.", min=0)] = 100,
    as_json: JsonOption = False,
) -> None:
    """The patients, by pseudonym: how many images, of what, with which labels."""
    from fedai_site.data_views import listing

    patients = listing(_entries(home))
    shown = patients[: limit or None]
    rows = [
        (
            one["patient"],
            one["images"],
            *(", ".join(one[name]) for name in ("modality", "body_part", "label")),
        )
        for one in shown
    ]
    lines = table(("patient", "images", "modality", "body part", "label"), rows)
    lines += [f"{len(patients) - len(shown)} more: --limit 0"] if len(shown) < len(patients) else []
    emit({"patients": shown, "number": len(patients)}, as_json=as_json, lines=lines)


@app.command()
def show(
    home: Home,
    name: Annotated[str, typer.Argument(help="A pseudonym, or a clean SOP Instance UID.", metavar="NAME")],
    as_json: JsonOption = False,
) -> None:
    """All that is kept of one patient or image."""
    from fedai_site.data_views import shown
    from fedai_site.home import open_home

    facts = shown(open_home(home).folder, name)
    rows = [
        ("patient", facts["patient"]),
        *((f"split of {plan}", split) for plan, split in facts["splits"].items()),
    ]
    lines = table(("", ""), rows)[1:]
    for image in facts["images"]:
        told = {**image, "readings": "; ".join(map(_said, image["readings"]))}
        known = [(name, value) for name, value in told.items() if value not in (None, "")]
        lines += ["", *table(("", ""), known)[1:]]
    emit(facts, as_json=as_json, lines=lines)


def _said(reading: dict[str, str]) -> str:
    return f"{reading['label']} by {reading['reader']} ({reading['source'] or 'not told'}, {reading['of']})"


@app.command()
def stats(home: Home, as_json: JsonOption = False) -> None:
    """Counts of images by all that a study's cohort may ask for; readers of labels, and how they agree."""
    from fedai_site.data_views import agreement, statistics

    counted, readers = statistics(_entries(home)), agreement(_readings(home))
    rows = [(name, value, count) for name, values in counted.items() for value, count in values.items()]
    lines = table(("", "", "images"), rows)
    if readers["readers"]:
        shown = [(one["reader"], one["labels"]) for one in readers["readers"]]
        lines += ["", *table(("reader", "labels"), shown)]
    if readers["pairs"]:
        lines += [
            "",
            *table(("reader", "and", "both labelled", "agree on", "kappa"), _pairs(readers["pairs"])),
        ]
    emit({"images": counted, **readers}, as_json=as_json, lines=lines)


def _readings(home: Path) -> list[Reading]:
    from fedai_site.catalogue import Catalogue
    from fedai_site.home import open_home

    with Catalogue(open_home(home).catalogue) as catalogue:
        return catalogue.readings()


def _pairs(pairs: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    kappas = ["" if pair["kappa"] is None else f"{pair['kappa']:.2f}" for pair in pairs]
    return [(*list(pair.values())[:4], kappa) for pair, kappa in zip(pairs, kappas, strict=True)]


@app.command()
def check(
    home: Home,
    study: Annotated[Path | None, typer.Option(help="A study, for its classes.", metavar="STUDY")] = None,
    as_json: JsonOption = False,
) -> None:
    """What is odd: the same image twice, blank images, negatives, spacings, rare or disputed labels.

    Opens no image.

    Exits 1 where something was found.
    """
    from fedai.study import read_study
    from fedai_site.quality import findings

    task = read_study(study).task if study else None
    classes = task.classes if task and task.kind == "classification" else ()
    found = findings(_entries(home), classes)
    lines = []
    for one in found:
        more = f" and {len(one.objects) - SHOWN} more (--json)" if len(one.objects) > SHOWN else ""
        lines += [f"{one.kind}: {one.text}", *(f"  {name}" for name in one.objects[:SHOWN])]
        lines += [f" {more}"] if more else []
    emit(
        {"findings": [vars(one) for one in found]}, as_json=as_json, lines=lines or ["nothing odd was found"]
    )
    if found:
        raise typer.Exit(1)
