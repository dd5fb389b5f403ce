"""Homes on this machine as sites of a simulation (`fedai simulate STUDY --home HOME`); nothing is sent.

Which cases are used is decided and noted as for training alone; a withdrawal ends the simulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from fedai.errors import ConfigError
from fedai.local import Cases
from fedai.study import Study
from fedai.wire import Task, TaskKind
from fedai_site.client_app import Bench
from fedai_site.home import open_home
from fedai_site.influence import noted


@dataclass(frozen=True)
class SimulatedHome:
    """A home's cases of a study."""

    bench: Bench

    @property
    def name(self) -> str:
        return self.bench.home.settings.name

    def cases(self, split: str) -> Cases:
        cases: Cases = self.bench.cases(split)
        return cases

    def may_go_on(self) -> bool:
        return self.bench.is_current()

    def told_training_cases(self) -> int:
        bench = self.bench
        return len(bench.told["train"])


@contextmanager
def open_homes(folders: Sequence[Path], study: Study, run: str) -> Iterator[list[SimulatedHome]]:
    """The homes as sites; that their cases are used is noted under `run`. Raises ConfigError."""
    homes = [SimulatedHome(Bench(open_home(folder), study, lambda: True)) for folder in folders]
    strangers = sorted({home.name for home in homes} - set(study.sites))
    if strangers or len({home.name for home in homes}) < len(homes):
        raise ConfigError(
            f"not named by the study, or twice: {', '.join(strangers) or 'a home'}",
            hint="the study's `sites` names each site once",
        )
    kinds: tuple[TaskKind, ...] = ("train", "score")  # validation cases are among those of "train"
    with ExitStack() as notes:
        for home, kind in product(homes, kinds):
            bench, task = home.bench, Task(kind=kind, study=study.sha256, run=run)
            notes.enter_context(noted(bench.home.catalogue, task, "", bench.cohort.splits))
        yield homes
