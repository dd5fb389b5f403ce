"""How the demo ends when it is interrupted: whatever the moment, and however often."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedai.demo.federation import Federation, _ending_processes
from fedai.demo.hospital import _start_pool


class _Interrupted:
    """Its finalizer is where the interrupt comes, and Python drops what a finalizer raises."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def demo(tmp_path: Path) -> Federation:
    return Federation(tmp_path, 40, 1, lambda text: None)


def start_sleeper(demo: Federation, code: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code]
    demo.processes["sleeper"] = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    return demo.processes["sleeper"]


def _lose_an_interrupt_and_tell(demo: Federation) -> None:
    lost = _Interrupted()
    try:
        del lost
    except KeyboardInterrupt:
        pytest.fail("the interrupt was not dropped, so this test shows nothing")
    demo.tell("on we go")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_dropped_still_ends_the_demo_at_its_next_word(demo: Federation) -> None:
    sleeper = start_sleeper(demo)
    with pytest.raises(KeyboardInterrupt), _ending_processes(demo, keep=True):
        _lose_an_interrupt_and_tell(demo)
    assert sleeper.poll() is not None


def test_a_second_interrupt_does_not_cut_the_ending_short(demo: Federation) -> None:
    slow = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(7)))\n"
    )
    sleeper = start_sleeper(demo, slow + "print('up', flush=True); time.sleep(60)")
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == b"up\n"
    subprocess.Popen(["sh", "-c", f"sleep 0.4; kill -INT {os.getpid()}"])
    with pytest.raises(KeyboardInterrupt), _ending_processes(demo, keep=False):
        raise KeyboardInterrupt
    assert sleeper.poll() == 7
    assert demo.interrupted


def test_the_processes_that_write_hospitals_never_see_ctrl_c() -> None:
    with _start_pool(1) as pool:
        blocked = pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, ()))
    assert signal.SIGINT in blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
