"""`fedai report RUN`: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedai.cli.output import ForceOption, JsonOption, check_targets, emit

if TYPE_CHECKING:
    from fedai.outline_results import OutlineComparison

app = typer.Typer(rich_markup_mode=None, add_completion=False)
HERE = Path()


@app.command()
def report(
    runs: Annotated[
        list[str],
        typer.Argument(help="A run's name or folder; the first leads.", metavar="RUN..."),
    ],
    home: Annotated[
        Path, typer.Option("--home", envvar="FEDAI_SERVER_HOME", help="The server's home.")
    ] = HERE,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; else report.html in the run's folder.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write every number as a long table.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Compare the others with this one; else federated.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run, or of several on the same cases: one HTML file that needs nothing else."""
    from fedai.cli.compare import joined_runs, margin_and_comparison, outlined_runs
    from fedai.long_table import as_csv
    from fedai.matrix import left_out_of, matrix_of
    from fedai.record import find_run
    from fedai.report import render

    path = out or find_run(runs[0], home) / "report.html"
    check_targets(path, *([csv] if csv else []), force=force)
    outlined = outlined_runs(runs, home, against=against)
    if outlined:
        _report_outlines(*outlined, path, csv, as_json=as_json)
        return
    records, judgement = joined_runs(runs, home)
    comparison = margin_and_comparison(records, judgement, against=against)
    record, *others = records.values()
    path.write_text(render(record, comparison, judgement, others), encoding="utf-8")
    told = {"report": str(path)}
    if csv is not None:
        csv.write_text(as_csv(comparison), encoding="utf-8")
        told["csv"] = str(csv)
    matrix = matrix_of(comparison, left_out_of(records))
    numbers = {"comparison": comparison.to_json(), "matrix": matrix.to_json()}
    emit({**told, **numbers}, as_json=as_json, lines=list(told.values()))


def _report_outlines(
    records: list[dict[str, Any]],
    comparison: OutlineComparison,
    path: Path,
    csv: Path | None,
    *,
    as_json: bool,
) -> None:
    """The same for segmentations' runs."""
    from fedai.outline_report import render_outlines
    from fedai.outline_tables import as_csv

    path.write_text(render_outlines(comparison, *records), encoding="utf-8")
    told = {"report": str(path)}
    if csv is not None:
        csv.write_text(as_csv(comparison), encoding="utf-8")
        told["csv"] = str(csv)
    emit({**told, "comparison": comparison.to_json()}, as_json=as_json, lines=list(told.values()))
