"""A TCP line between a site and the server that can be cut, go silent, or be slow."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 1 << 14
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Line:
    """Listens on `address` and forwards to `target`. While `held`, nothing passes and nothing is closed."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.open = threading.Event()
        self.open.set()
        self.bytes_per_s, self.latency_s = 0.0, 0.0
        self.carried, self.reset_count = 0, 0
        self.ends: set[socket.socket] = set()
        self.lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """A black hole: connections stay, and nothing comes out of them."""
        self.open.clear()

    def release(self) -> None:
        self.open.set()

    def reset(self) -> int:
        """Cut every connection with a TCP reset at both ends; gives how many ends there were."""
        with self.lock:
            ends, self.ends = self.ends, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                end.shutdown(socket.SHUT_RD)
            with contextlib.suppress(OSError):
                end.close()
        self.reset_count += len(ends)
        return len(ends)

    def slow(self, bits_per_s: float, latency_s: float) -> None:
        """From now on each direction of each connection carries so much, so late."""
        self.bytes_per_s, self.latency_s = bits_per_s / 8, latency_s

    def close(self) -> None:
        self.listener.close()
        self.open.set()
        self.reset()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                near, _ = self.listener.accept()
                try:
                    far = socket.create_connection(self.target, timeout=5)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                with self.lock:
                    self.ends |= {near, far}
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Both directions, until both have ended."""
        other = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        other.start()
        self._pump(near, far)
        other.join()
        with self.lock:
            self.ends -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self.open.wait()
                if self.bytes_per_s:
                    time.sleep(self.latency_s + len(data) / self.bytes_per_s)
                sink.sendall(data)
                self.carried += len(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def line_to(target: str) -> Iterator[Line]:
    """A line that is closed with the block."""
    line = Line(target)
    try:
        yield line
    finally:
        line.close()
