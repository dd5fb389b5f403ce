"""A run's events as MLflow's runs: one for the federation, one below it for each site."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fedai.errors import ConfigError, FederationError
from fedai.events import ALL, CheckpointChosen, Event, Judged, RoundClosed, RunEnded, SiteReady

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT, TAG = "fedai", "fedai.run"
STATUS = {"finished": "FINISHED", "failed": "FAILED"}
PARENT = "mlflow.parentRunId"


class MLflowRuns:
    """Writes what it hears to `where`: a folder, in which an SQLite file needs no server, or a tracking URI.

    In the experiment `fedai`: metrics over rounds and the judgement at the last one, what is of all sites in
    the parent run, what is of one in its own. A run without an end (its follower was interrupted) is KILLED.

    Raises ConfigError where mlflow isn't installed, or the run is there already; FederationError where the
    store doesn't answer, then and later.
    """

    def __init__(self, where: str, run: str) -> None:
        require_mlflow()
        from mlflow import MlflowClient

        self.where, self.run, self.last_round, self.status = where, run, 0, "KILLED"
        self.places: dict[str, str] = {}  # place -> MLflow's run
        with _answering():
            self.client: MlflowClient = MlflowClient(tracking_uri=uri_of(where))
            self.experiment = self._experiment()
            if self.client.search_runs([self.experiment], filter_string=f"tags.`{TAG}` = '{run}'"):
                hint = "give another folder or server, or delete its runs there"
                raise ConfigError(f"{run} is in {shown(where)} already", hint=hint)
            self._open(ALL)

    def hear(self, event: Event) -> None:
        with _answering():
            self._hear(event)

    def close(self) -> None:
        with _answering():
            for made in self.places.values():
                self.client.set_terminated(made, self.status)

    def _hear(self, event: Event) -> None:
        if isinstance(event, SiteReady):
            for split, cases in event.cases.items():
                self.client.log_param(self._open(event.site), f"cases/{split}", cases)
            for software, version in event.versions.items():
                self.client.log_param(self._open(event.site), f"version/{software}", version)
        elif isinstance(event, RoundClosed):
            self.last_round = event.number
            counts = {"answered": len(event.answered), "late": len(event.late), "refused": len(event.refused)}
            self._write(ALL, "round", {"seconds": event.seconds, **counts})
            for site, numbers in event.numbers.items():
                self._write(site, "round", numbers)
        elif isinstance(event, CheckpointChosen):
            self._write(ALL, "chosen", {"round": event.round, event.by: event.value})
        elif isinstance(event, Judged):
            for model, places in event.numbers.items():
                for place, numbers in places.items():
                    self._write(place, f"test/{model}", numbers)
        elif isinstance(event, RunEnded):
            self.status = STATUS.get(event.state, "KILLED")
            self.client.set_tag(self.places[ALL], "fedai.state", event.state)

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        artifacts = None if "://" in self.where else (Path(self.where).resolve() / "artifacts").as_uri()
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=artifacts))

    def _open(self, place: str) -> str:
        """MLflow's run of a site, or of all."""
        if place not in self.places:
            tags = {TAG: self.run} if place == ALL else {TAG: self.run, PARENT: self.places[ALL]}
            name = self.run if place == ALL else place
            made = self.client.create_run(self.experiment, run_name=name, tags=tags)
            self.places[place] = str(made.info.run_id)
        return self.places[place]

    def _write(self, place: str, group: str, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(f"{group}/{name}", value, now, self.last_round) for name, value in numbers.items()]
        self.client.log_batch(self._open(place), metrics=metrics)


def uri_of(where: str) -> str:
    """MLflow's tracking URI of a folder, which it makes, or of a URI."""
    if "://" in where:
        return where
    Path(where).mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{Path(where).resolve() / 'mlflow.db'}"


def shown(where: str) -> str:
    """A folder or URI without a user and password."""
    return re.sub(r"//[^/]*@", "//", where)


@contextmanager
def _answering() -> Iterator[None]:
    """Raise FederationError where MLflow says no."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        hint = "is it a folder, or the URI of a tracking server that runs?"
        raise FederationError(f"MLflow's store doesn't take it: {error.error_code}", hint=hint) from None


def require_mlflow() -> None:
    """Raise ConfigError where mlflow isn't installed."""
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise ConfigError("mlflow is not installed", hint="pip install 'fedai-radiology[mlflow]'") from None
