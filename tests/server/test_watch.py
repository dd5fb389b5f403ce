"""The page of the server's numbers: off unless asked for, on loopback alone, in Prometheus' form."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from pathlib import Path

import pytest
from fedai_server import watch
from fedai_server.health import Pulse, look
from fedai_server.home import ServerHome, open_home
from fedai_server.runs import RunDatabase
from fedai_server.watch import families, watched
from federation_processes import RunningServer, free_port, make_home
from prometheus_client.parser import text_string_to_metric_families
from studies import small_study

from fedai.errors import ConfigError
from fedai.exposition import page
from fedai.study import NAME_PATTERN

WORDS = re.compile(r"[a-z_]+")


def watched_home(folder: Path) -> ServerHome:
    home = make_home(folder)
    with (home.folder / "server.yaml").open("a") as settings:
        settings.write(f"metrics_port: {free_port()}\n")
    return open_home(home.folder)


def get(home: ServerHome, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", home.settings.metrics_port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def numbers(text: str) -> dict[tuple[str, ...], float]:
    """(name, label values...) -> value."""
    read = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in read}


@pytest.mark.federation
def test_a_running_server_answers_that_it_is_well_with_its_numbers(server: RunningServer) -> None:
    assert get(server.home, "/healthz") == (200, "ok\n")
    status, text = get(server.home, "/metrics")
    assert status == 200
    found = numbers(text)
    assert found["fedai_healthy",] == 1
    assert found["fedai_process_up", "superlink"] == found["fedai_process_up", "superexec"] == 1
    assert found["fedai_database_bytes", "superlink"] > 0


def test_a_server_that_is_down_says_why_in_one_line(tmp_path: Path) -> None:
    home = watched_home(tmp_path / "home")
    with watched(home, Pulse()):
        assert get(home, "/healthz") == (503, "superlink is not running; superexec is not running\n")
        assert numbers(get(home, "/metrics")[1])["fedai_healthy",] == 0


def test_a_runs_numbers_are_told_by_its_name_and_its_sites(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    runs = RunDatabase(home.runs_database)
    name, over = runs.plan(small_study()), runs.plan(small_study())
    runs.move(over, "failed")
    closed = {"number": 1, "answered": ["east", "north"], "late": ["south"], "refused": {}}
    runs.add(name, "round_closed", closed)
    asked = {"task": "train", "round": 2, "sites": ["east", "north", "south"], "deadline_s": 60, "bytes": 300}
    runs.add(name, "asked", asked)
    runs.add(name, "answer", {"site": "north", "refused": "", "bytes": 100})
    text = page(families(home, look(home, Pulse())))
    found = numbers(text)
    assert found["fedai_runs", "planned"] == found["fedai_runs", "failed"] == 1
    assert found["fedai_runs", "running"] == 0
    assert (found["fedai_run_rounds", name], found["fedai_run_rounds_closed", name]) == (2, 1)
    assert found["fedai_run_open_round", name, "train"] == 2
    assert 0 <= found["fedai_run_seconds_since_progress", name] < 30
    assert 30 < found["fedai_run_open_seconds_left", name] <= 60
    assert found["fedai_run_open_sites", name, "answered"] == 1
    assert found["fedai_run_open_sites", name, "awaited"] == 2
    assert found["fedai_run_last_round_sites", name, "late"] == 1
    assert {labels for labels in found if labels[0] == "fedai_run_site_awaited"} == {
        ("fedai_run_site_awaited", name, "east"), ("fedai_run_site_awaited", name, "south"),
    }  # fmt: skip
    assert found["fedai_run_bytes_total", name, "sent"] == 300
    assert found["fedai_run_bytes_total", name, "received"] == 100
    assert over not in text
    for _, *labels in found:
        assert all(re.fullmatch(NAME_PATTERN, label) or WORDS.fullmatch(label) for label in labels)


def test_a_page_of_a_browser_and_another_name_than_loopbacks_are_refused(tmp_path: Path) -> None:
    home = watched_home(tmp_path / "home")
    with watched(home, Pulse()):
        assert get(home, "/metrics", Host="fed.example.org")[0] == 403
        assert get(home, "/metrics", Origin="http://127.0.0.1")[0] == 403
        assert get(home, "/../metrics")[0] == get(home, "/")[0] == 404


def test_nothing_listens_unless_a_port_is_set_and_then_on_loopback_alone(tmp_path: Path) -> None:
    before = threading.active_count()
    with watched(make_home(tmp_path / "home"), Pulse()):
        assert threading.active_count() == before
    home = watched_home(tmp_path / "other")
    with watched(home, Pulse()), socket.socket() as other:
        other.bind(
            ("127.0.0.2", home.settings.metrics_port or 0)
        )  # it would be taken, were it on every interface
    with pytest.raises(OSError):
        get(home, "/healthz")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    home = watched_home(tmp_path / "home")
    port = home.settings.metrics_port or 0
    taken = pytest.raises(ConfigError, match=f"port {port}")
    with socket.create_server(("127.0.0.1", port)), taken, watched(home, Pulse()):
        raise AssertionError
    settings = (home.folder / "server.yaml").read_text()
    same = settings.replace(str(home.settings.metrics_port), str(home.settings.loopback_port))
    (home.folder / "server.yaml").write_text(same)
    with pytest.raises(ConfigError, match="must differ"):
        open_home(home.folder)


def test_a_look_that_does_not_end_or_fails_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "CALLER_S", 0.05)
    page_of = watch.Watch(make_home(tmp_path / "home"), Pulse())
    with page_of.turn:
        assert page_of.answer("/healthz")[0] == 503
    page_of.home.folder.rename(tmp_path / "elsewhere")
    status, _, text = page_of.answer("/healthz")
    assert (status, text) == (503, "the server can't be looked at (FileNotFoundError)\n")
