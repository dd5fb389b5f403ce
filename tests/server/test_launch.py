from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from fedai_server import launch as module
from fedai_server.control import Control
from fedai_server.launch import halt, launch, put_references
from fedai_server.runs import RunDatabase
from federation_processes import RunningServer, make_home, make_site_key
from studies import small_study

from fedai.errors import ConfigError, FederationError


def runs_of(server: RunningServer) -> RunDatabase:
    return RunDatabase(server.home.folder / "runs.sqlite")


@pytest.fixture(scope="module")
def admitted(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Two sites of this module's own that the server has admitted."""
    from cryptography.hazmat.primitives import serialization as form

    names = ("launch-a", "launch-b")
    with Control(server.home) as control:
        for name in names:
            _, public = make_site_key(tmp_path_factory.mktemp(name))
            key = form.load_ssh_public_key(public.read_bytes())
            control.register_site(
                name, key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
            )
    return names


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    return tmp_path / "w.safetensors"


def test_a_run_is_planned_attached_and_stopped(
    server: RunningServer, admitted: tuple[str, ...], checkpoint: Path
) -> None:
    study = small_study(name="launched", sites=list(admitted), rounds={"waiting_s": 600})
    name = launch(server.home, study, [f"centralised={checkpoint}"])
    run = runs_of(server).get(name)
    assert name == "launched-1"
    assert run.flower_id
    kept = server.home.folder / "registry" / name / "references" / "centralised.safetensors"
    assert kept.read_bytes() == b"weights"
    with Control(server.home) as control:
        (told,) = [one for one in control.list_runs() if one.run_id == run.flower_id]
    assert told.study_text == study.canonical()
    halt(server.home, name)
    assert runs_of(server).get(name).state in ("stopped", "failed")  # its reference is no checkpoint
    assert halt(server.home, name) is False


def test_a_study_that_names_a_stranger_starts_nothing(
    server: RunningServer, admitted: tuple[str, ...]
) -> None:
    study = small_study(name="strangers", sites=[*admitted, "zoo", "moon"], rounds={"quorum": 1})
    with pytest.raises(ConfigError, match="not admitted: moon, zoo") as caught:
        launch(server.home, study)
    assert "fedai server admit" in caught.value.hint
    assert not [run for run in runs_of(server).all() if run.name.startswith("strangers")]


@pytest.mark.parametrize(
    "text", ["", "x", "=w", "X=w", "federated={w}", "a b={w}", "local:north={w}", "x=/gone", "x=/"]
)
def test_a_reference_is_a_name_and_a_file(text: str, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--reference"):
        launch(make_home(tmp_path / "home"), small_study(), [text.format(w=checkpoint)])


def test_two_references_of_one_name_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="named twice: x"):
        launch(make_home(tmp_path / "home"), small_study(), [f"x={checkpoint}", f"x={checkpoint}"])


def test_a_manifest_goes_with_the_weights_that_it_speaks_of_and_with_no_others(tmp_path: Path) -> None:
    weights = tmp_path / "made" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    own = json.dumps({"sha256": hashlib.sha256(b"weights").hexdigest(), "split_plan": "x/0/0.1/0.2"})
    told = {own: True, '{"sha256": "00"}': False, "[]": False, "\x00": False}
    for number, (text, goes) in enumerate(told.items()):
        (weights.parent / "manifest.json").write_text(text)
        put_references(tmp_path / str(number), [("other", weights)])
        kept = {path.name for path in (tmp_path / str(number)).iterdir()}
        assert kept == {"other.safetensors"} | ({"other.manifest.json"} if goes else set())


def test_a_server_that_is_not_there_starts_nothing(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with pytest.raises(FederationError) as caught:
        launch(home, small_study())
    assert "fedai server start" in caught.value.hint
    assert RunDatabase(home.folder / "runs.sqlite").all() == []


def test_a_start_that_the_superlink_refuses_is_a_failed_run(
    server: RunningServer, admitted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "release_bundle", lambda: b"no bundle")
    study = small_study(name="refused", sites=list(admitted))
    with pytest.raises(FederationError):
        launch(server.home, study)
    run = runs_of(server).get("refused-1")
    assert run.state == "failed"
    assert run.reason


def test_a_run_that_is_not_there_can_not_be_stopped(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run"):
        halt(make_home(tmp_path / "home"), "gone-1")
