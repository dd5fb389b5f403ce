"""Compressed pixels are decoded for the first time in a process of its own.

Some decoders end the whole process, or never return, when a stream is broken. What has been decoded here once
can be decoded anywhere; what ends this child or takes too long is quarantined, and a new child takes over.
"""

from __future__ import annotations

import atexit
import os
import select
import subprocess
import sys
from functools import cache
from typing import IO

TIME_LIMIT_S = 60.0
MEMORY_LIMIT_BYTES = 6 << 30
YES, NO = b"1", b"0"


def decodes(data: bytes, *, stored: bool = False) -> bool:
    """Whether the pixels of a DICOM file, given as its bytes, can be decoded safely.

    `stored`: stored values are enough, as de-identification reads them (JPEG with 12 bits among others), even
    if they can't be turned into a picture for training.
    """
    return _trial().decodes(data, stored=stored)


@cache
def _trial() -> Trial:
    trial = Trial()
    atexit.register(trial.close)
    return trial


class Trial:
    """One warm child process; it ends with its parent, since its input ends then."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._child: subprocess.Popen[bytes] | None = None

    def decodes(self, data: bytes, *, stored: bool = False) -> bool:
        """Send a file to the child and wait for its answer: no answer is a no."""
        child = self._running()
        try:
            _send(_pipe(child.stdin), data, stored)
        except OSError:
            self.close()
            return False
        output = _pipe(child.stdout).fileno()
        ready, _, _ = select.select([output], [], [], self._time_limit_s)
        answer = os.read(output, 1) if ready else b""
        if not answer:
            self.close()
        return answer == YES

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "fedai_site.decoding"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        return self._child

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the child has no pipe")
    return pipe


def _send(pipe: IO[bytes], data: bytes, stored: bool) -> None:
    pipe.write(YES if stored else NO)
    pipe.write(len(data).to_bytes(8, "big"))
    pipe.write(data)
    pipe.flush()


def answer_all(files: IO[bytes], answers: IO[bytes]) -> None:
    """The child: one byte of answer for each file, until the input ends."""
    while stored := files.read(1):
        data = files.read(int.from_bytes(files.read(8), "big"))
        answers.write(YES if _shows(data) or (stored == YES and _has_frames(data)) else NO)
        answers.flush()


def _shows(data: bytes) -> bool:
    from fedai_site import intake
    from fedai_site.quarantine import Quarantine

    try:
        intake.decode(data)
    except Quarantine:
        return False
    return True


def _has_frames(data: bytes) -> bool:
    """Whether every frame's stored values can be read."""
    from fedai_site.deidentify import reading
    from fedai_site.deidentify.pixels import frames
    from fedai_site.deidentify.silence import silenced
    from fedai_site.quarantine import Quarantine

    try:
        with silenced():
            dataset = reading.parse(data)
            layout = frames.layout(dataset)
            return layout is not None and sum(1 for _ in frames.read(dataset, layout)) == layout.count
    except (Quarantine, AttributeError):  # no file meta: nothing says how to decode it
        return False


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit_memory()
    answer_all(sys.stdin.buffer, sys.stdout.buffer)
