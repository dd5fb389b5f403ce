"""`fedai compare RUN`: the models of a run on the same test cases, per site and pooled, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedai.cli.output import JsonOption, emit, table

if TYPE_CHECKING:
    from fedai.compare import Comparison

app = typer.Typer(rich_markup_mode=None, add_completion=False)
HERE = Path()


@app.command()
def compare(
    run: Annotated[str, typer.Argument(help="A run's name or folder.", metavar="RUN")],
    home: Annotated[
        Path, typer.Option("--home", envvar="FEDAI_SERVER_HOME", help="The server's home.")
    ] = HERE,
    as_json: JsonOption = False,
) -> None:
    """Compare the models of a run, with 95% intervals that treat patients as the unit."""
    from fedai.compare import compare as compare_models
    from fedai.record import find_run, read_judgement

    comparison = compare_models(read_judgement(find_run(run, home)))
    emit(comparison.to_json(), as_json=as_json, lines=comparison_lines(comparison))


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """The comparison as plain tables."""
    from fedai.tables import tables

    for shown in tables(comparison):
        yield shown.title
        yield from (f"  {line}" for line in table(shown.header, shown.rows))
        if shown.note:
            yield f"  {shown.note}"
        yield ""
