"""`fedai demo`: from DICOM files to a compared model, with real processes, in one command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from fedai.cli.output import JsonOption, emit, progress_line

app = typer.Typer(rich_markup_mode=None, add_completion=False)
OUT = Path("demo-run")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="A new folder for everything that the demo writes.")] = OUT,
    patients: Annotated[int, typer.Option(min=40, max=5000, help="Patients of each hospital.")] = 180,
    seed: Annotated[int, typer.Option(help="Seed of the invented hospitals.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server and the agents running.")] = False,
    hospitals_only: Annotated[
        bool,
        typer.Option("--hospitals-only", help="Write the hospitals' files and the study, and stop there."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Three invented hospitals train one model together; it is compared with local and centralised ones."""
    from fedai.demo.federation import run_demo, write_only

    started = time.monotonic()

    def tell(text: str) -> None:
        progress_line(f"{time.monotonic() - started:6.1f} s  {text}")

    if hospitals_only:
        written = write_only(out, patients=patients, seed=seed, tell=tell)
        emit(written, as_json=as_json, lines=[f"written to {out}"])
        return
    result = run_demo(out, patients=patients, seed=seed, keep=keep, tell=tell)
    emit(result, as_json=as_json, lines=[] if as_json else list(_lines(result)))
    if result["leaks"]:
        raise typer.Exit(1)


def _lines(result: dict[str, Any]) -> Iterator[str]:
    from fedai.cli.compare import comparison_lines
    from fedai.compare import compare
    from fedai.record import find_run, read_judgement

    yield ""
    yield from comparison_lines(compare(read_judgement(find_run(result["run"], Path(result["server_home"])))))
    yield f"study    {result['study_hash']}"
    yield f"leaks    {result['leaks']} planted identifiers in what left the sites"
    yield f"report   {result['report']}"
    yield from (f"ledger   {path}  ({site})" for site, path in result["ledgers"].items())
    yield from (f"log      {path}  ({name})" for name, path in result["logs"].items())
    yield f"took     {result['seconds']:.0f} s"
    for name, pid in result["processes"].items():
        yield f"running  {name}, process {pid}; end it with: kill {pid}"
