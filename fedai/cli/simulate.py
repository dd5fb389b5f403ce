"""`fedai simulate`: a study's rounds in one process, without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedai.cli.output import JsonOption, emit, progress_line

if TYPE_CHECKING:
    from fedai.simulate import Simulated
    from fedai.study import Study

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def simulate(
    study: Annotated[Path, typer.Argument(help="The study's YAML file.")],
    out: Annotated[Path, typer.Option(help="A new folder for the model and simulation.json.")],
    home: Annotated[list[Path] | None, typer.Option(help="A site's home on this machine; repeat it.")] = None,
    sites: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Instead: so many invented sites.")
    ] = None,
    cases: Annotated[int, typer.Option(min=2, max=10_000, help="Of each invented site, in each split.")] = 20,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes, for invented sites.")] = 1,
    threads: Annotated[
        int, typer.Option(min=0, help="Of torch; 0: as torch chooses, 1 with several workers.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a study's model over homes of this machine, or invented sites, as a run with its seeds would."""
    from fedai.errors import ConfigError
    from fedai.simulate import RoundClosed
    from fedai.simulate import simulate as run_study
    from fedai.study import read_study

    if bool(home) == bool(sites) or (home and workers > 1):
        raise ConfigError("name either homes or a number of sites", hint="--home HOME ..., or --sites N")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is there already", hint="name a new folder")
    if threads or workers > 1:
        import torch

        torch.set_num_threads(threads or 1)
    of_study = read_study(study)
    _check_least(of_study, sites or len(home or []))

    def tell(closed: RoundClosed) -> None:
        told = f"round {closed.number} of {of_study.training.rounds}: {closed.sites} sites"
        progress_line(f"{told}, training loss {closed.train_loss:.4f}, {closed.seconds:.1f} s")

    with _opened(of_study, home or [], sites, cases, out) as (named, opened):
        done = run_study(named, opened, out / "sites", workers=workers, tell=tell)
    facts = _written(done, named, out)
    emit(facts, as_json=as_json, lines=_lines(facts, out))


def _check_least(study: Study, sites: int) -> None:
    from fedai.errors import ConfigError

    least = study.strategy.least_answers
    if sites < least:
        raise ConfigError(f"{study.strategy.name} needs {least} sites, there are {sites}")


def _opened(
    study: Study, homes: list[Path], sites: int | None, cases: int, out: Path
) -> AbstractContextManager[tuple[Study, list[Any]]]:
    if sites:
        from fedai.demo.crowd import invent_sites

        return nullcontext(invent_sites(study, sites, cases, out))
    return _homes(study, homes, out)


@contextmanager
def _homes(study: Study, homes: list[Path], out: Path) -> Iterator[tuple[Study, list[Any]]]:
    """The site's side opens homes; it is found as its commands are."""
    (point,) = entry_points(group="fedai.simulation", name="homes")
    with point.load()(homes, study, f"simulation {out}") as found:
        yield study, found


def _written(done: Simulated, study: Study, out: Path) -> dict[str, Any]:
    from fedai.checkpoint import save_checkpoint, write_whole
    from fedai.simulate import headline

    of = "dice" if study.task.kind == "segmentation" else "auroc"
    names = sorted(done.scores)
    number = done.chosen.get("round", len(done.rounds))
    facts: dict[str, Any] = {"study": study.sha256, "sites": names, "parent": "", "cases": 0}
    digest = save_checkpoint(out, done.weights, done.layout, **facts, round=number)
    last = digest
    if number != len(done.rounds):
        last = save_checkpoint(out / "last", done.last, done.layout, **facts, round=len(done.rounds))
    told: dict[str, Any] = {
        "sha256": digest,
        "study": study.sha256,
        "strategy": study.strategy.name,
        "rounds": [asdict(closed) for closed in done.rounds],
        "reason": done.reason,
        **({"chosen": {**done.chosen, "checkpoint": digest, "last_checkpoint": last}} if done.chosen else {}),
        f"pooled_{of}": _numbers(headline(done.pooled)),
        f"site_{of}": {name: _numbers(done.scores[name]) for name in names},
    }
    write_whole(out / "simulation.json", json.dumps(told, indent=1, allow_nan=False).encode())
    return told


def _numbers(values: Any) -> list[float | None]:
    return [None if value != value else float(value) for value in values]


def _lines(facts: dict[str, Any], out: Path) -> list[str]:
    of = "dice" if "pooled_dice" in facts else "auroc"
    pooled = ", ".join("-" if value is None else f"{value:.3f}" for value in facts[f"pooled_{of}"])
    by_site = sorted(sum(v) / len(v) for v in facts[f"site_{of}"].values() if None not in v)
    lines = [f"{'Dice ' if of == 'dice' else 'AUROC'}    {pooled} (pooled)"]
    if by_site:
        worst, median, best = by_site[0], by_site[len(by_site) // 2], by_site[-1]
        lines.append(f"by site  worst {worst:.3f}, median {median:.3f}, best {best:.3f}")
    if "chosen" in facts:
        lines.append(f"chosen   round {facts['chosen']['round']}: {facts['chosen']['why']}")
    lines += [f"ended    {facts['reason']}"] if facts["reason"] else []
    seconds = sum(closed["seconds"] for closed in facts["rounds"])
    return [*lines, f"took     {seconds:.1f} s for {len(facts['rounds'])} rounds", f"model    {out}"]
