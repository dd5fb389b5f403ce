"""The site's numbers for its own monitoring: in a file or on the terminal, never on a port."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fedai_site import gauges
from fedai_site.agent import Agent
from fedai_site.gauges import kept, text_of
from fedai_site.home import SiteHome, SiteSettings
from fedai_site.watchdog import Watchdog
from fedai_site.witness import ledger_of
from homes import make_home, told
from prometheus_client.parser import text_string_to_metric_families

from fedai.cli.app import run
from fedai.errors import ConfigError
from fedai.yamlfile import parse


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    return make_home(tmp_path_factory.mktemp("site"), patients=3)


@pytest.fixture
def home(filled: SiteHome) -> SiteHome:
    for path in (filled.ledger, filled.ledger_heads, filled.folder / "node"):
        path.unlink(missing_ok=True)
    return filled


def numbers(text: str) -> dict[tuple[str, ...], float]:
    """(name, label values but the site's...) -> value."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert {sample.labels.pop("site") for sample in samples} == {"north"}
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_what_left_what_lies_there_and_whether_the_ledger_holds_are_told(home: SiteHome) -> None:
    ledger = ledger_of(home)
    ledger.append(kind="update", run="r-1", task="train", bytes=1000)
    ledger.append(kind="update", run="r-1", task="train", bytes=500)
    ledger.append(kind="error", run="r-1", code="DATA", reference="0123456789ab")
    found = numbers(text_of(home))
    assert found["fedai_site_messages_total", "update", "train", ""] == 2
    assert found["fedai_site_messages_total", "error", "", "DATA"] == 1
    assert found["fedai_site_sent_bytes_total",] == 1500
    assert (found["fedai_site_ledger_ok",], found["fedai_site_ledger_lines",]) == (1, 3)
    assert found["fedai_site_files", "WRITTEN"] == 6
    assert found["fedai_site_inbox_files",] == 0
    assert found["fedai_site_agent", "never_started"] == 1
    assert found["fedai_site_disk_free_bytes",] > 0
    home.ledger.write_bytes(home.ledger.read_bytes().replace(b"500", b"501"))
    assert numbers(text_of(home))["fedai_site_ledger_ok",] == 0


def test_no_number_names_a_patient_a_path_or_a_run(home: SiteHome) -> None:
    ledger_of(home).append(kind="error", run="r-1", code="DATA", reference="0123456789ab")
    text = text_of(home, Watchdog())
    assert not any(word in text for word in ("P1", "r-1", "0123456789ab", str(home.folder)))


def test_a_batch_that_takes_too_long_is_told_by_the_agents_process_alone(home: SiteHome) -> None:
    clock = [0.0]
    dog = Watchdog(stuck_minutes=1, now=lambda: clock[0])
    assert numbers(text_of(home, dog))["fedai_site_stuck",] == 0
    dog.begin()
    clock[0] = 61
    found = numbers(text_of(home, dog))
    assert (found["fedai_site_stuck",], found["fedai_site_seconds_without_batch",]) == (1, 61)
    assert "fedai_site_stuck" not in text_of(home)


def test_the_servers_last_answer_is_remembered_also_while_a_task_is_worked_on(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    node = home.folder / "node"
    node.write_text("7")
    os.utime(node, (1, 1))
    assert numbers(text_of(home))["fedai_site_last_contact_seconds",] == 1

    class Line:
        def facts_of(self, run_id: int) -> None:
            return None

        def receive(self) -> None:
            agent.stop.set()

    agent = Agent(home, threading.Event(), tell=lambda text: None)
    assert not agent._is_over(Line(), 1)  # type: ignore[arg-type]
    assert time.time() - node.stat().st_mtime < 60
    os.utime(node, (1, 1))
    agent._serve(Line())  # type: ignore[arg-type]
    assert time.time() - node.stat().st_mtime < 60
    assert node.read_text() == "7"


def test_the_file_is_written_whole_and_again_and_is_readable_by_the_collector(
    home: SiteHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "EVERY_S", 0.02)
    file = tmp_path / "north.prom"
    watched = replace(home, settings=home.settings.model_copy(update={"metrics_file": file}))
    with kept(watched, Watchdog()):
        while not file.exists():
            time.sleep(0.01)
        first = file.stat().st_ino
        while file.stat().st_ino == first:
            time.sleep(0.01)
    assert "fedai_site_stuck" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["north.prom"]


def test_without_a_place_or_where_it_cannot_be_written_the_agent_goes_on(
    home: SiteHome, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with kept(home, Watchdog()):
        assert list(home.folder.rglob("*.prom")) == []
    missing = home.settings.model_copy(update={"metrics_file": tmp_path / "missing" / "north.prom"})
    with kept(replace(home, settings=missing), Watchdog()):
        pass
    assert "can't be written" in caplog.text


def test_another_ending_than_the_collectors_is_refused() -> None:
    raw = b"name: north\nserver: {address: 'a.org:1', ca: ca.pem}\nmetrics_file: /tmp/north.txt\n"
    with pytest.raises(ConfigError, match=r"\.prom"):
        parse(raw, SiteSettings, "site.yaml")


def test_status_prints_the_numbers(home: SiteHome, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["site", "status", str(home.folder), "--prometheus"]) == 0
    assert numbers(capsys.readouterr().out)["fedai_site_files", "WRITTEN"] == 6
    code, facts = told(capsys, "status", home.folder, "--prometheus")
    assert (code, numbers(facts["prometheus"])["fedai_site_ledger_ok",]) == (0, 1)
