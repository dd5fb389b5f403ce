"""A line to a PostgreSQL server that breaks between a commit and the word of it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SOCKET = ".s.PGSQL.5432"
DONE = b"COMMIT\0"  # what the server says of a commit


class DeafLine:
    """Listens in `folder`, as the server in its own; `deafen` lets the next word of a commit get lost."""

    def __init__(self, url: str, folder: Path) -> None:
        target = parse_qs(urlsplit(url).query)["host"][0]
        self.url, self.target = url.replace(target, str(folder)), f"{target}/{SOCKET}"
        self.deaf, self.lost = False, 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / SOCKET))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def deafen(self) -> None:
        self.deaf = True

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                near, _ = self.listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.target)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(*ends, ends[0] is far), daemon=True).start()

    def _pump(self, source: socket.socket, to: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if is_answer and self.deaf and DONE in data:
                    self.deaf, self.lost = False, self.lost + 1
                    break
                to.sendall(data)
        for end in (source, to):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
