"""A DICOMweb service for tests, over real HTTP: objects by UIDs, paging, and faults on request."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom import dcmread

TAGS = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}
NAMES = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}
BOUNDARY = b"the-boundary"
Fault = Callable[["Archive", str, int], tuple[int, dict[str, str], bytes] | None]


class Archive:
    """Holds objects by their UIDs; `fault` may answer a request, given its path and how often it came."""

    def __init__(self, objects: list[bytes], page: int = 1000, fault: Fault | None = None) -> None:
        self.page, self.fault = page, fault
        self.rows: list[dict[str, Any]] = []
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        for data in objects:
            self.put(data)

    def put(self, data: bytes) -> None:
        """Store an object; one of the same UIDs is replaced."""
        dataset = dcmread(BytesIO(data))
        row: dict[str, Any] = {kind: str(dataset[name].value) for kind, name in NAMES.items()}
        row |= {"data": data, "Modality": str(dataset.Modality), "PatientID": str(dataset.PatientID)}
        self.rows = [one for one in self.rows if one["instances"] != row["instances"]] + [row]

    def fetched(self) -> int:
        """How many objects were given out."""
        return sum(
            number for path, number in self.asked.items() if path.rpartition("/")[0].endswith("instances")
        )

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a GET."""
        self.asked[path] += 1
        if self.fault and (answer := self.fault(self, path, self.asked[path])):
            return answer
        parts = path.strip("/").split("/")
        named = dict(zip(parts[::2], parts[1::2], strict=False))
        rows = [row for row in self.rows if all(row[kind] == uid for kind, uid in named.items())]
        if len(parts) % 2:
            return self._found(parts[-1], rows, query)
        if not rows:
            return 404, {}, b""
        head = b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"
        kind = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}'}
        return 200, kind, head + rows[0]["data"] + b"\r\n--" + BOUNDARY + b"--\r\n"

    def _found(
        self, level: str, rows: list[dict[str, Any]], query: dict[str, list[str]]
    ) -> tuple[int, dict[str, str], bytes]:
        for name in ("Modality", "PatientID"):
            rows = [row for row in rows if query.get(name, [row[name]]) == [row[name]]]
        uids = list(dict.fromkeys(row[level] for row in rows))
        start = int(query.get("offset", ["0"])[0])
        end = start + min(self.page, int(query.get("limit", ["1000"])[0]))
        body = [{TAGS[level]: {"vr": "UI", "Value": [uid]}} for uid in uids[start:end]]
        return 200, {"Content-Type": "application/dicom+json"}, json.dumps(body).encode()


@contextmanager
def serving(archive: Archive) -> Iterator[str]:
    """The archive at a port of this machine; gives its URL."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            archive.headers.append(dict(self.headers))
            path = parts.path.removeprefix("/dicom-web")
            status, headers, body = archive.answer(path, parse_qs(parts.query))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()
