"""Compressed pixels are decoded for the first time in a process of its own.

Some decoders end the whole process, or never return, when a stream is broken. What has been decoded here once
can be decoded anywhere; what ends this child or takes too long is quarantined, and a new child takes over.
Streams that were damaged on purpose are decoded in a process of the child's own, one for each file: a decoder
that writes where it must not then harms nothing that comes after.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from hashlib import sha256
from typing import IO, Any

from numpy.typing import NDArray

TIME_LIMIT_S = 60.0
MEMORY_LIMIT_BYTES = 6 << 30
YES, NO = b"1", b"0"
SHOWN, STORED, DAMAGED = b"p", b"s", b"d"
DIGEST_BYTES = 32
LENGTH_BYTES = 8


def decodes(data: bytes, *, stored: bool = False) -> bool:
    """Whether the pixels of a DICOM file, given as its bytes, can be decoded safely.

    `stored`: stored values are enough, as de-identification reads them (JPEG with 12 bits among others), even
    if they can't be turned into a picture for training.
    """
    return _trial().decodes(data, stored=stored)


def damaged_frames(data: bytes) -> list[bytes]:
    """SHA-256 of each frame's stored values in a file whose streams were damaged on purpose, b"" for a frame
    that can't be decoded any more; nothing at all where the decoder ended its process or took too long.
    """
    trial = _trial()
    length = int.from_bytes(trial.ask(DAMAGED, data, LENGTH_BYTES), "big")
    answer = trial.more(length)
    parts = [answer[at : at + DIGEST_BYTES] for at in range(0, len(answer), DIGEST_BYTES)]
    return [part if any(part) else b"" for part in parts]


def digest(stored: NDArray[Any]) -> bytes:
    """SHA-256 of a frame's stored values."""
    return sha256(stored.tobytes()).digest()


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
        """No answer is a no."""
        return self.ask(STORED if stored else SHOWN, data, 1) == YES

    def ask(self, kind: bytes, data: bytes, size: int) -> bytes:
        """Send a file to the child and wait for `size` bytes of answer: b"" where none comes."""
        child = self._running()
        try:
            _send(_pipe(child.stdin), kind, data)
        except OSError:
            self.close()
            return b""
        return self.more(size)

    def more(self, size: int) -> bytes:
        """The next bytes of an answer; b"", and the end of the child, where they don't come in time."""
        answer = b""
        while self._child is not None and len(answer) < size:
            output = _pipe(self._child.stdout).fileno()
            ready, _, _ = select.select([output], [], [], self._time_limit_s)
            part = os.read(output, size - len(answer)) if ready else b""
            if not part:
                self.close()
                return b""
            answer += part
        return answer

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
        """End the child, if there is one, and who decodes for it."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.communicate()
            self._child = None


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the child has no pipe")
    return pipe


def _send(pipe: IO[bytes], kind: bytes, data: bytes) -> None:
    pipe.write(kind)
    pipe.write(len(data).to_bytes(LENGTH_BYTES, "big"))
    pipe.write(data)
    pipe.flush()


def answer_all(files: IO[bytes], answers: IO[bytes]) -> None:
    """The child: an answer for each file, until the input ends."""
    while kind := files.read(1):
        data = files.read(int.from_bytes(files.read(LENGTH_BYTES), "big"))
        if kind == DAMAGED:
            found = _apart(data)
            answers.write(len(found).to_bytes(LENGTH_BYTES, "big") + found)
        else:
            answers.write(YES if _shows(data) or (kind == STORED and _has_frames(data)) else NO)
        answers.flush()


def _apart(data: bytes) -> bytes:
    """`_digests` by a process that ends with it; b"" where it ended without an answer."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(_digests(data))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(process, 0)
    return answer if len(answer) % DIGEST_BYTES == 0 else b""


def _digests(data: bytes) -> bytes:
    """A digest for each frame, zeros for one that can't be decoded."""
    from fedai_site.deidentify import reading
    from fedai_site.deidentify.pixels import frames
    from fedai_site.deidentify.silence import silenced

    with silenced():
        dataset = reading.read(data)
        layout = frames.layout(dataset)
        if layout is None:
            return b""
        parts = []
        for number in range(layout.count):
            try:
                parts.append(digest(frames.decoded(dataset, layout, number)[0]))
            except frames.FAULTS_AND_REFUSALS:
                parts.append(bytes(DIGEST_BYTES))
    return b"".join(parts)


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
