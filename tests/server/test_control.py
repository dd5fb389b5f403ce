"""The Control client against a real SuperLink."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fedai_server import pki
from fedai_server.bundle import release_bundle
from fedai_server.control import Control, FlowerRun
from federation_processes import RunningServer, free_port, logs_of, make_home, make_site_key, wait_for

from fedai.errors import FederationError
from fedai.release import BUNDLE_SHA256

pytestmark = pytest.mark.federation
STUDY = "name: not-a-study\nüml: ä\n"


def key(folder: Path, name: str) -> bytes:
    return pki.read_public_key(make_site_key(folder, name)[1].read_bytes())


def run_of(control: Control, run_id: int) -> FlowerRun:
    return next(run for run in control.list_runs() if run.run_id == run_id)


def test_a_site_is_registered_once_and_found_by_name(server: RunningServer, tmp_path: Path) -> None:
    with Control(server.home) as control:
        public = key(tmp_path, "north")
        node_id = control.register_site("north", public)
        assert control.register_site("north", public) == node_id
        (site,) = (site for site in control.list_sites() if site.name == "north")
    assert (site.node_id, site.public_key, site.status) == (node_id, public, "registered")


def test_a_name_belongs_to_one_key_and_a_key_to_one_name(server: RunningServer, tmp_path: Path) -> None:
    with Control(server.home) as control:
        public = key(tmp_path, "east")
        control.register_site("east", public)
        with pytest.raises(FederationError, match="another key"):
            control.register_site("east", key(tmp_path, "east-again"))
        with pytest.raises(FederationError, match="admitted as east"):
            control.register_site("far-east", public)


def test_a_retired_site_is_gone_and_its_key_stays_out(server: RunningServer, tmp_path: Path) -> None:
    with Control(server.home) as control:
        public = key(tmp_path, "south")
        control.register_site("south", public)
        assert control.unregister_site("south")
        assert not control.unregister_site("south")
        assert "south" not in {site.name for site in control.list_sites()}
        with pytest.raises(FederationError, match="retired"):
            control.register_site("south", public)
        assert control.register_site("south", key(tmp_path, "south-new")) > 0


def test_a_run_carries_the_study_and_the_releases_bundle(server: RunningServer) -> None:
    with Control(server.home) as control:
        run_id = control.start_run(release_bundle(), STUDY)
        run = run_of(control, run_id)
        assert run.study_text == STUDY
        assert run.bundle_sha256 == BUNDLE_SHA256
        control.stop_run(run_id)
        wait_for(lambda: run_of(control, run_id).status == "finished", 30, logs_of(server.home))
        assert not control.stop_run(run_id)


def test_a_run_that_is_not_there_cannot_be_stopped(server: RunningServer) -> None:
    with Control(server.home) as control, pytest.raises(FederationError, match="knows no such run"):
        control.stop_run(7)


def test_more_runs_than_flower_lists_by_itself_are_listed(server: RunningServer) -> None:
    with Control(server.home) as control:
        assert len(control.list_runs(limit=1)) == 1
        for _ in range(22 - len(control.list_runs())):
            control.stop_run(control.start_run(release_bundle(), STUDY))
        assert len(control.list_runs()) == 22


def test_what_is_no_bundle_starts_nothing(server: RunningServer) -> None:
    with Control(server.home) as control:
        before = len(control.list_runs())
        with pytest.raises(FederationError):
            control.start_run(b"not a bundle", STUDY)
        assert len(control.list_runs()) == before


def test_without_a_server_the_next_step_is_named(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with Control(home) as control, pytest.raises(FederationError, match="no server answers") as error:
        control.list_runs()
    assert error.value.hint == f"start it: fedai server start {home.folder}"


def test_another_homes_server_is_not_mistaken_for_ours(server: RunningServer, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    settings = home.settings.model_copy(update={"loopback_port": server.home.settings.loopback_port})
    with (
        Control(replace(home, settings=settings)) as control,
        pytest.raises(FederationError, match="not this home's"),
    ):
        control.list_runs()


def test_proxies_of_the_environment_are_not_used(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Control(server.home) as control:
        control.list_sites()
