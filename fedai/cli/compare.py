"""`fedai compare`: models on the same test cases, of a run or of files of scores, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedai.cli.output import JsonOption, emit, table
from fedai.errors import ConfigError

if TYPE_CHECKING:
    from fedai.judgement import Judgement
    from fedai.outline_results import OutlineComparison
    from fedai.results import Comparison
    from fedai.tables import Table

app = typer.Typer(rich_markup_mode=None, add_completion=False)
HERE = Path()


@app.command()
def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="A run's name or folder; after --scores, further files.", metavar="RUN|SITE.csv..."
        ),
    ] = None,
    home: Annotated[
        Path, typer.Option("--home", envvar="FEDAI_SERVER_HOME", help="The server's home.")
    ] = HERE,
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            "--scores",
            metavar="SITE.csv [SITE.csv ...]",
            help="Compare files of scores, one per site: columns patient, label, then one per model.",
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="[MODEL=]T", help="With --scores: positive from T on; fixed on other cases."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Test non-inferiority in AUROC with this margin, fixed beforehand."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Compare the others with this one alone; of several runs RUN/MODEL."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare models on the same cases, with 95% intervals that treat patients as the unit."""
    if scores:
        files = [*scores, *map(Path, runs or [])]
        _refuse_runs(files, home)
        _compare_files(files, threshold or [], margin, against, as_json=as_json)
        return
    if threshold:
        raise ConfigError("--threshold goes with --scores: a run's is fixed in its study", hint="see --help")
    if not runs:
        raise ConfigError("nothing to compare", hint="fedai compare RUN..., or --scores SITE.csv ...")
    outlined = outlined_runs(runs, home, against=against)
    if outlined:
        from fedai.outline_tables import tables

        if margin is not None:
            raise ConfigError("--margin is of an AUROC, which a segmentation has none of", hint="see --help")
        shown = outlined[1]
        emit(shown.to_json(), as_json=as_json, lines=lines_of(tables(shown)))
        return
    comparison = compare_runs(runs, home, against=against, margin=margin)
    emit(comparison.to_json(), as_json=as_json, lines=comparison_lines(comparison))


def outlined_runs(
    runs: list[str], home: Path, *, against: str | None = None
) -> tuple[list[dict[str, Any]], OutlineComparison] | None:
    """The records and the comparison of segmentations' runs, of several as RUN/MODEL; None for runs of
    classifications. Raises ConfigError where they can't be compared, so for runs of both.
    """
    from fedai.outline_joining import join_outlines
    from fedai.outline_results import compare_outlines
    from fedai.record import grid_of, read_judgement, read_outlines
    from fedai.results import FEDERATED

    folders = _folders_of(runs, home)
    found = {name: read_outlines(folder) for name, folder in folders.items()}
    judgements = {name: judgement for name, judgement in found.items() if judgement is not None}
    if not judgements:
        return None
    for name in folders.keys() - judgements.keys():
        read_judgement(folders[name])
        raise ConfigError(f"{name} is of a classification, {next(iter(judgements))} of a segmentation",
                          hint="compare them apart")  # fmt: skip
    records = _checked_records(folders)
    if len(folders) == 1:
        return [*records.values()], compare_outlines(*judgements.values(), against=against)
    joined = join_outlines(judgements, {name: grid_of(record) for name, record in records.items()})
    against = against or f"{next(iter(records))}/{FEDERATED}"
    return [*records.values()], compare_outlines(joined, against=against)


def compare_runs(
    runs: list[str], home: Path, *, against: str | None = None, margin: float | None = None
) -> Comparison:
    """One run, or several on the same cases as RUN/MODEL. The margin is the study's unless one is given.

    Raises ConfigError where they can't be compared.
    """
    return margin_and_comparison(*joined_runs(runs, home), against=against, margin=margin)


def joined_runs(runs: list[str], home: Path) -> tuple[dict[str, dict[str, Any]], Judgement]:
    """The runs' records by name, and their one judgement. Raises ConfigError where they can't be compared."""
    from fedai.joining import join
    from fedai.record import read_judgement

    folders = _folders_of(runs, home)
    judgements = {name: read_judgement(folder) for name, folder in folders.items()}
    records = _checked_records(folders)
    return records, join(judgements) if len(judgements) > 1 else next(iter(judgements.values()))


def _folders_of(runs: list[str], home: Path) -> dict[str, Path]:
    from fedai.record import find_run

    folders = {folder.name: folder for folder in (find_run(run, home) for run in runs)}
    if len(folders) < len(runs):
        raise ConfigError("a run is named twice", hint="or two folders have one name")
    return folders


def _checked_records(folders: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """By name. Raises ConfigError where a model may have been trained on test patients."""
    from fedai.record import check_overlap, read_record

    records = {name: read_record(folder) for name, folder in folders.items()}
    for name, record in records.items():
        check_overlap(name, record)
    return records


def margin_and_comparison(
    records: dict[str, dict[str, Any]],
    judgement: Judgement,
    *,
    against: str | None = None,
    margin: float | None = None,
) -> Comparison:
    """The comparison with `against`, or with the first run's federated model."""
    from fedai.compare import compare as compare_models
    from fedai.record import margin_of
    from fedai.results import FEDERATED

    margin = margin if margin is not None else margin_of(records)
    if against is None and len(records) > 1:
        against = f"{next(iter(records))}/{FEDERATED}"
    return compare_models(judgement, against=against, margin=margin)


def _refuse_runs(files: list[Path], home: Path) -> None:
    """Raise ConfigError where --scores is given a run, or another folder, in place of a file."""
    for path in files:
        is_run = any((folder / "record.json").is_file() for folder in (path, home / "registry" / path))
        if not path.is_file() and (is_run or path.is_dir()):
            kind = "run" if is_run else "folder"
            what = f"--scores takes files of scores, one CSV per site; {path} is a {kind}"
            raise ConfigError(what, hint=f"fedai compare {path}" if is_run else "name the files in it")


def _compare_files(
    paths: list[Path], thresholds: list[str], margin: float | None, against: str | None, *, as_json: bool
) -> None:
    from fedai.score_comparison import compare_scores
    from fedai.score_files import read_score_files
    from fedai.score_tables import tables, to_json

    sites = read_score_files(paths)
    asked = _thresholds(thresholds, sites[0].models)
    comparison = compare_scores(sites, thresholds=asked, margin=margin, against=against)
    emit(to_json(comparison), as_json=as_json, lines=lines_of(tables(comparison)))


def _thresholds(given: list[str], models: tuple[str, ...]) -> dict[str, float]:
    """`0.5` for all models, `MODEL=0.5` for one."""
    found: dict[str, float] = {}
    for text in given:
        model, _, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"--threshold {text} holds no number", hint="such as 0.5 or MODEL=0.5")
        found |= {model: number} if model else {m: found.get(m, number) for m in models}
    return found


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """The comparison as plain tables."""
    from fedai.subgroup_tables import subgroup_tables
    from fedai.tables import tables

    return lines_of([*tables(comparison), *subgroup_tables(comparison)])


def lines_of(tables: Iterable[Table]) -> Iterator[str]:
    for shown in tables:
        yield shown.title
        yield from (f"  {line}" for line in table(shown.header, shown.rows))
        if shown.note:
            yield f"  {shown.note}"
        yield ""
