"""`fedai run`: start, watch, list, show, pause and stop runs, at the coordinator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedai.cli.output import ForceOption, JsonOption, check_targets, emit, plain, progress_line, table, when

if TYPE_CHECKING:
    from fedai.events import Listener
    from fedai_server.runs import Run, RunDatabase

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="At the coordinator: start, watch, list, show, pause and stop runs.",
)

Home = Annotated[Path, typer.Option("--home", envvar="FEDAI_SERVER_HOME", help="The server's home folder.")]
HERE = Path()
LINES = {
    "ledger_head": "the ledger of {site} contradicts what it told before: {contradiction}",
    "begun": "begun",
    "without": "trains without {sites}",
    "overview": "an overview: nothing will be trained",
    "weights_sent": "round {round} is open",
    "continued": "its process at the server was gone; it goes on after round {after}",
    "last_validated": "the last checkpoint is validated",
    "checkpoint_chosen": "round {round} is judged: {why}",
    "trained_alone": "{site} has trained its own model",
    "site_left_out": "{site} is left out of the judgement: {why}",
}
RunName = Annotated[str, typer.Argument(help="The run's name, such as cxr-nodule-1.", metavar="RUN")]
WITHHELD = "withheld"
WITHHELD_NOTE = "withheld: of so few patients the site tells nothing (under three, or as its policy says)"
WATCH_EVERY_S, LOOK_EVERY_S = 0.5, 5.0
QUIET = ("asked", "answer")  # for /metrics; a line each would be too many


@app.command()
def start(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=weights.safetensors: judge this checkpoint beside the run's models; repeatable."
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="SITE", help="This site doesn't train, it judges only; repeatable."),
    ] = None,
    overview: Annotated[
        bool, typer.Option("--overview", help="End once sites have told what they have; train nothing.")
    ] = False,
    home: Home = HERE,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and follow the run to its end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a run of a study at the sites that it names."""
    from fedai.study import read_study
    from fedai_server.home import open_home
    from fedai_server.launch import launch

    name = launch(open_home(home), read_study(study), reference or [], without or [], overview=overview)
    if watch:
        _watch(home, name, as_json=as_json)
        return
    lines = [f"started {name}", f"next: fedai run watch {name} --home {home}"]
    emit({"run": name}, as_json=as_json, lines=lines)


@app.command()
def watch(run: RunName, home: Home = HERE, as_json: JsonOption = False) -> None:
    """Follow a run to its end; a line for each thing that happens. Exits 5 where it failed or was stopped."""
    _watch(home, run, as_json=as_json)


@app.command()
def follow(
    run: RunName,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write TensorBoard's event files below this folder.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="URI|DIR", help="Write to MLflow: a folder, or a tracking server.")
    ] = None,
    home: Home = HERE,
    as_json: JsonOption = False,
) -> None:
    """Follow a run to its end and write its numbers down as they come, from its first round on."""
    from fedai.errors import ConfigError
    from fedai_server.following import tell
    from fedai_server.home import open_home

    if tensorboard is None and mlflow is None:
        raise ConfigError("nowhere to write to", hint="give --tensorboard DIR or --mlflow URI|DIR")
    runs = _runs(home)
    runs.get(run)
    listeners: list[Listener] = []
    told, lines = {"run": run}, []
    if tensorboard is not None:
        from fedai.tensorboard import TensorBoardFiles

        listeners.append(TensorBoardFiles(tensorboard, run))
        told["tensorboard"] = str(tensorboard / run)
        lines += [str(tensorboard / run), f"next: tensorboard --logdir {tensorboard}"]
    if mlflow is not None:
        from fedai.mlflow import MLflowRuns, shown

        listeners.append(MLflowRuns(mlflow, run))
        told["mlflow"] = shown(mlflow)
        lines += [f"{shown(mlflow)}  experiment fedai, run {run}"]
    heard = tell(runs, open_home(home).folder / "registry", run, *listeners)
    emit({**told, "events": heard}, as_json=as_json, lines=[f"{heard} events", *lines])


@app.command("list")
def list_runs(home: Home = HERE, as_json: JsonOption = False) -> None:
    """All runs, the oldest first."""
    runs = _runs(home).all()
    rows = [(run.name, run.state, when(run.started), f"{run.seconds:.0f} s", run.reason) for run in runs]
    shown = [_facts_of(run) for run in runs]
    lines = table(("run", "state", "started", "took", "reason"), rows) if rows else ["no run yet"]
    emit({"runs": shown}, as_json=as_json, lines=lines)


@app.command()
def show(run: RunName, home: Home = HERE, as_json: JsonOption = False) -> None:
    """One run: its study, its sites' cohorts, its rounds."""
    record = _runs(home).record(run)
    lines = [
        f"{record['run']}  {record['state']}  {record['reason']}".rstrip(),
        f"study {record['study_hash']}",
    ]
    lines += _cohort_lines(record) + _overview_lines(record) + _round_lines(record)
    lines += (
        [f"judged   round {record['chosen']['round']}: {record['chosen']['why']}"] if record["chosen"] else []
    )
    lines += [f"refused  {site}: {code}" for site, code in record["refused"].items()]
    emit(record, as_json=as_json, lines=lines)


@app.command()
def reproduce(run: RunName, home: Home = HERE, as_json: JsonOption = False) -> None:
    """Do an ended run once more at its sites: is each model the same to the bit? Exits 1 where one isn't."""
    from fedai.errors import ConfigError
    from fedai.record import find_run, read_record
    from fedai.reproduction import compare_runs
    from fedai.study import Study
    from fedai_server.home import open_home
    from fedai_server.launch import launch, references_of

    before = find_run(run, home)
    record = read_record(before)
    if not record["rounds"]:
        raise ConfigError(f"{before.name} has closed no round: there is nothing to do once more",
                          hint="fedai run list says how far each run came")  # fmt: skip
    study = Study.model_validate(record["study"])
    name = launch(open_home(home), study, references_of(before), record.get("without", []))
    for line in _news(home, name):
        progress_line(line)
    found = compare_runs(before, find_run(name, home))
    lines = [*table(("model", ""), found.models.items()), *found.reasons]
    same = f"{name} is {found.first} to the bit" if found.is_same else f"{name} differs from {found.first}"
    facts = {"run": name, "first": found.first, "same": found.is_same, "models": found.models}
    emit({**facts, "reasons": found.reasons}, as_json=as_json, lines=[*lines, same])
    if not found.is_same:
        raise typer.Exit(1)


@app.command()
def matrix(
    runs: Annotated[list[str], typer.Argument(help="Ended runs, by name or folder.", metavar="RUN...")],
    home: Home = HERE,
    as_json: JsonOption = False,
) -> None:
    """Where models were trained against where they are tested: AUROC at every site."""
    from fedai.cli.compare import joined_runs, lines_of, margin_and_comparison
    from fedai.matrix import left_out_of, matrix_of, table_of

    records, judgement = joined_runs(runs, home)
    found = matrix_of(margin_and_comparison(records, judgement), left_out_of(records))
    emit(found.to_json(), as_json=as_json, lines=lines_of([table_of(found)]))


@app.command()
def crate(
    run: RunName,
    out: Annotated[Path, typer.Option(help="The ZIP file to write.")],
    weights: Annotated[bool, typer.Option("--weights", help="With the checkpoints themselves.")] = False,
    home: Home = HERE,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write an ended run as an RO-Crate: a ZIP file of its record, judgement, study, report and manifests."""
    from fedai.crates import write_crate
    from fedai.record import find_run

    folder = find_run(run, home)
    check_targets(out, force=force)
    files = write_crate(folder, out, weights=weights)
    told = [
        {"file": file["@id"], "sha256": file["sha256"], "bytes": int(file["contentSize"])} for file in files
    ]
    emit({"crate": str(out), "files": told}, as_json=as_json, lines=[f"{out}  {len(files)} files"])


@app.command()
def stop(run: RunName, home: Home = HERE, as_json: JsonOption = False) -> None:
    """Stop a run: no further round; what was saved is kept."""
    from fedai_server.home import open_home
    from fedai_server.launch import halt

    stopped = halt(open_home(home), run)
    lines = [f"{run} stopped" if stopped else f"{run} had ended before"]
    emit({"run": run, "stopped": stopped}, as_json=as_json, lines=lines)


@app.command()
def pause(run: RunName, home: Home = HERE, as_json: JsonOption = False) -> None:
    """Pause a run: a round that is open still closes, no further one begins."""
    _change(run, home, "paused", "is not under way", as_json=as_json)


@app.command()
def resume(run: RunName, home: Home = HERE, as_json: JsonOption = False) -> None:
    """Let a paused run go on (the server must be up, or it goes on when it is started)."""
    _change(run, home, "resumed", "is not paused", as_json=as_json)


def _change(run: str, home: Path, done: str, otherwise: str, *, as_json: bool) -> None:
    from fedai_server.home import open_home
    from fedai_server.launch import named
    from fedai_server.ledger import note

    runs = _runs(home)
    note(open_home(home), "pause" if done == "paused" else "resume", **named(runs.get(run)))
    changed = runs.pause(run) if done == "paused" else runs.resume(run)
    state = runs.get(run).state
    lines = [f"{run} {done}" if changed else f"{run} {otherwise}: it is {state}"]
    emit({"run": run, done: changed, "state": state}, as_json=as_json, lines=lines)


def _runs(home: Path) -> RunDatabase:
    from fedai_server.home import open_home
    from fedai_server.runs import RunDatabase

    return RunDatabase(open_home(home).runs_database)


def _facts_of(run: Run) -> dict[str, object]:
    return {
        "run": run.name,
        "state": run.state,
        "reason": run.reason,
        "study_hash": run.study_sha256,
        "started": run.started,
        "seconds": round(run.seconds, 1),
    }


def _watch(home: Path, name: str, *, as_json: bool) -> None:
    for line in _news(home, name):
        progress_line(line)
    run = _runs(home).get(name)
    emit(
        _facts_of(run),
        as_json=as_json,
        lines=[f"{run.name} {run.state} after {run.seconds:.0f} s {run.reason}"],
    )
    if run.state != "finished":
        raise typer.Exit(5)


def _news(home: Path, name: str) -> Iterator[str]:
    """Lines as they become true, until the run is over."""
    from fedai_server.runs import OVER

    seen, told, runs, server = 0, ("", ""), _runs(home), _Server(home)
    while True:
        run = runs.get(name)
        for number, kind, fact in runs.facts(name, after=seen):
            if kind not in QUIET and (kind != "ledger_head" or fact["contradiction"]):
                yield f"{name}: {_line(kind, fact)}"
            seen = number
        if (run.state, run.reason) != told:
            told = (run.state, run.reason)
            yield f"{name}: {run.state} {run.reason}".rstrip()
        if run.state in OVER:
            return
        yield from server.news()
        time.sleep(WATCH_EVERY_S)


class _Server:
    """Says when the server goes down or comes back; a run stands still meanwhile."""

    def __init__(self, home: Path) -> None:
        from fedai_server.home import open_home

        self.home, self.up, self.looked_at = open_home(home), True, time.monotonic()

    def news(self) -> Iterator[str]:
        from fedai_server.processes import is_ready

        if time.monotonic() - self.looked_at < LOOK_EVERY_S:
            return
        up, self.looked_at = is_ready(self.home), time.monotonic()
        if up != self.up:
            self.up = up
            down = f"the server is down; runs go on with: fedai server start {self.home.folder}"
            yield "the server is up again" if up else down


def _line(kind: str, fact: dict[str, Any]) -> str:
    from fedai.record import answered_in

    if kind == "site_ready":
        return f"{fact['site']} is ready with {fact['cohort']['splits']['train']['cases']} training cases"
    if kind == "site_refused":
        return f"{fact['site']} refused: {fact['code']}"
    if kind == "round_closed":
        late = f", late: {', '.join(fact['late'])}" if fact["late"] else ""
        refused = "".join(f", {site} refused: {code}" for site, code in fact["refused"].items())
        by = f"closed in {fact['seconds']:.1f} s by {', '.join(answered_in(fact))}"
        drawn = f", not selected: {', '.join(fact['not_selected'])}" if fact.get("not_selected") else ""
        return f"round {fact['number']} {by}{drawn}{late}{refused}"
    if kind == "model_scored":
        return f"{fact['model']} scored by {', '.join(fact['answered'])}"
    return LINES.get(kind, kind).format(**{name: plain(value) for name, value in fact.items()})


def _cohort_lines(record: dict[str, Any]) -> list[str]:
    from fedai.wire import FLOW, SPLITS

    rows = [
        (
            site,
            *(cohort["flow"].get(step, "") for step in FLOW),
            *_told_of_splits(cohort),
        )
        for site, cohort in record["cohorts"].items()
    ]
    note = [WITHHELD_NOTE] if any(WITHHELD in row for row in rows) else []
    return [*table(("site", *FLOW, *SPLITS), rows), *note] if rows else []


def _told_of_splits(cohort: dict[str, Any]) -> list[object]:
    """Cases of each split; a 0 stands for a split that isn't told of where more cases are used than told."""
    cases = [facts["cases"] for facts in cohort["splits"].values()]
    withheld = sum(cases) < cohort["flow"].get("used", 0)
    return [WITHHELD if withheld and not count else count for count in cases]


def _overview_lines(record: dict[str, Any]) -> list[str]:
    from fedai.overview import apart, overview_rows

    sites = {site: cohort["overview"] for site, cohort in record["cohorts"].items() if "overview" in cohort}
    rows = overview_rows(sites) if sites else []
    head = ("images by", "site", "images", "the middle one", "all")
    return [*table(head, rows), *(f"look at  {said}" for said in apart(sites))] if rows else []


def _round_lines(record: dict[str, Any]) -> list[str]:
    from fedai.record import answered_in

    drawn = any("not_selected" in fact for fact in record["rounds"])
    rows = [
        (
            fact["number"],
            ", ".join(answered_in(fact)),
            *([", ".join(fact.get("not_selected", []))] if drawn else []),
            ", ".join(fact["late"]),
            f"{fact['seconds']:.1f} s",
        )
        for fact in record["rounds"]
    ]
    head = ("round", "answered", *(["not selected"] if drawn else []), "late", "took")
    return table(head, rows) if rows else []
