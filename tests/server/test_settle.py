"""A run whose process at the server was killed doesn't look like slow training for ever."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from fedai_server.admission import admit
from fedai_server.launch import launch, settle
from fedai_server.runs import RunDatabase
from federation_processes import family, make_home, make_site_key, start_server, wait_for
from studies import small_study


@pytest.mark.federation
def test_a_run_whose_process_is_killed_is_called_failed(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    study = small_study()
    with start_server(home) as server:
        for site in study.sites:
            admit(server.home, site, make_site_key(tmp_path, site)[1])
        name = launch(server.home, study)
        runs = RunDatabase(server.home.folder / "runs.sqlite")
        wait_for(lambda: runs.get(name).state == "waiting", 90, "the run to begin")
        killed = [pid for pid in family(server.process.pid) if "flwr-serverapp" in command_of(pid)]
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

        def is_failed() -> bool:
            settle(server.home)
            return runs.get(name).state == "failed"

        wait_for(is_failed, 240, "the run to be called failed")
        assert "process at the server ended" in runs.get(name).reason


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
