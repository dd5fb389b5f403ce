"""`fedai report RUN`: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedai.cli.output import JsonOption, emit

app = typer.Typer(rich_markup_mode=None, add_completion=False)
HERE = Path()


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run's name or folder.", metavar="RUN")],
    home: Annotated[
        Path, typer.Option("--home", envvar="FEDAI_SERVER_HOME", help="The server's home.")
    ] = HERE,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; else report.html in the run's folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's report as one HTML file that needs nothing else."""
    from fedai.compare import compare
    from fedai.record import find_run, read_judgement, read_record
    from fedai.report import render

    folder = find_run(run, home)
    judgement = read_judgement(folder)
    path = out or folder / "report.html"
    path.write_text(render(read_record(folder), compare(judgement), judgement), encoding="utf-8")
    emit({"report": str(path)}, as_json=as_json, lines=[str(path)])
