from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runs import draw_judgement

from fedai.compare import compare
from fedai.errors import ConfigError, FederationError
from fedai.events import Event, RoundClosed, RunEnded, SiteReady, judged
from fedai.mlflow import MLflowRuns, shown

mlflow = pytest.importorskip("mlflow")
VERSIONS = {"fedai-radiology": "0.1.0", "torch": "2.6.0"}
SEEN = (
    SiteReady("small-1", "north", {"train": 7, "test": 4}, VERSIONS),
    RoundClosed("small-1", 1, 2.5, ("north",), ("east",), (), {"north": {"train_loss": 0.9}}),
    RoundClosed("small-1", 2, 1.5, ("north",), (), (), {"north": {"train_loss": 0.5}}),
)


def refuse(*told: object, **more: object) -> None:
    raise AssertionError(f"a connection: {told}")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in ((socket.socket, "connect"), (socket, "getaddrinfo"), (socket, "create_connection")):
        monkeypatch.setattr(owner, name, refuse)


def heard(folder: Path, *events: Event, run: str = "small-1") -> None:
    runs = MLflowRuns(str(folder), run)
    for event in events:
        runs.hear(event)
    runs.close()


def found(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A client, and name -> run, by MLflow's own reader."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fedai").experiment_id
    return client, {run.info.run_name: run for run in client.search_runs([experiment])}


def curve(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, name))


@pytest.mark.usefixtures("offline")
def test_a_folder_gets_a_run_for_the_federation_and_one_below_it_for_each_site(tmp_path: Path) -> None:
    comparison = compare(draw_judgement())
    heard(tmp_path, *SEEN, judged("small-1", comparison), RunEnded("small-1", "finished", "", 9.0))
    client, runs = found(tmp_path)
    parent, north = runs["small-1"], runs["north"]
    assert north.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert "mlflow.parentRunId" not in parent.data.tags
    assert curve(client, north, "round/train_loss") == [(1, 0.9), (2, 0.5)]
    assert curve(client, parent, "round/late") == [(1, 1.0), (2, 0.0)]
    assert north.data.params["cases/train"] == "7"
    assert north.data.params["version/torch"] == "2.6.0"
    federated = comparison.model("federated")
    assert federated is not None
    for run, result in ((parent, federated.pooled), *((runs[s], r) for s, r in federated.sites.items())):
        assert curve(client, run, "test/federated/auroc") == [(2, pytest.approx(result.auroc.value))]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert parent.data.tags["fedai.state"] == "finished"


@pytest.mark.parametrize(("state", "status"), [("failed", "FAILED"), ("stopped", "KILLED"), ("", "KILLED")])
def test_a_run_that_did_not_finish_says_so_and_one_without_an_end_too(
    state: str, status: str, tmp_path: Path
) -> None:
    heard(tmp_path, *SEEN, *([RunEnded("small-1", state, "", 1.0)] if state else []))
    assert {run.info.status for run in found(tmp_path)[1].values()} == {status}


def test_a_run_that_is_there_already_is_refused_and_another_is_not(tmp_path: Path) -> None:
    heard(tmp_path, *SEEN)
    with pytest.raises(ConfigError, match=r"small-1 is in .* already"):
        MLflowRuns(str(tmp_path), "small-1")
    heard(tmp_path, run="small-2")
    assert {"small-1", "small-2", "north"} <= set(found(tmp_path)[1])


def test_a_store_that_cannot_be_written_is_told_without_a_password() -> None:
    with pytest.raises(FederationError, match="MLflow's store"):
        MLflowRuns("nonsense://user:secret@there", "small-1")
    assert shown("http://user:secret@there:5000/x") == "http://there:5000/x"


def test_telemetry_is_off_in_whatever_imports_fedai() -> None:
    """In a process of its own: under pytest MLflow sends nothing anyway."""
    words = "import fedai; from mlflow.telemetry import get_telemetry_client as get; print(get() is None)"
    hidden = ("PYTEST", "CI", "GITHUB", "MLFLOW", "DO_NOT_TRACK", "TF_BUILD", "JENKINS", "TRAVIS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    done = subprocess.run(
        [sys.executable, "-c", words], env=environment, text=True, check=True, capture_output=True
    )
    assert done.stdout.strip() == "True"


def test_without_mlflow_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"fedai-radiology\[mlflow\]"):
        MLflowRuns(str(tmp_path), "small-1")
