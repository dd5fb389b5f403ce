"""Asks the hospital's archive (QIDO-RS) and fetches objects into the inbox (WADO-RS).

A process of its own, started by fetching.py. It contacts the one address that it is given, follows no
redirect and no proxy, opens no key of the home and no data set. It reads one line of JSON, its `Order`, and
writes a line for each object: `kept NAME` once it is on the disk, `failed UID` where the archive doesn't give
it out; in the end `finished` or `stopped WHY`. While nobody reads the lines, it waits. What it had under the
same question before it was stopped isn't fetched again.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import requests
from dicomweb_client.api import DICOMwebClient
from pydantic import BaseModel

from fedai_site import inbox

UID = re.compile(r"[0-9.]{1,64}")
PAGE = 100
ATTEMPTS, ATTEMPTS_AT_ONE = 8, 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
TIMEOUT_S = (10.0, 60.0)
AWAY = frozenset({408, 425, 429, 502, 503, 504})
HEADER_BYTES = 1 << 16
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
REMEMBERED = """
CREATE TABLE IF NOT EXISTS salt (value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS fetched (question TEXT, object BLOB, PRIMARY KEY (question, object)) WITHOUT ROWID;
"""
Answer = TypeVar("Answer")


class Order(BaseModel):
    """What to fetch: filters by level of the query, matched by the archive.

    `new_only`: nothing that an earlier question of the same wording brought, even if that was finished.
    """

    inbox: Path
    url: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    studies: dict[str, str] = {}
    series: dict[str, str] = {}
    new_only: bool = False

    @property
    def question(self) -> str:
        """The same for the same address and filters."""
        text = self.model_dump_json(include={"url", "studies", "series"})
        return sha256(text.encode()).hexdigest()[:16]


class Stopped(Exception):
    """The archive can't be asked any further; the text is safe to show."""


class Memory:
    """Which objects were fetched, as salted hashes of their UIDs."""

    def __init__(self, folder: Path, question: str) -> None:
        self._database = sqlite3.connect(folder / ".fetched.sqlite", isolation_level=None, timeout=60)
        self._database.executescript(REMEMBERED)
        row = self._database.execute("SELECT value FROM salt").fetchone()
        self._salt = row[0] if row else secrets.token_bytes(16)
        if row is None:
            self._database.execute("INSERT INTO salt VALUES (?)", (self._salt,))
        self._question = question

    def _row(self, uid: str) -> tuple[str, bytes]:
        return self._question, sha256(self._salt + uid.encode()).digest()[:16]

    def has(self, uid: str) -> bool:
        """Whether an object was fetched."""
        query = "SELECT 1 FROM fetched WHERE question = ? AND object = ?"
        return self._database.execute(query, self._row(uid)).fetchone() is not None

    def add(self, uid: str) -> None:
        """An object is in the inbox now."""
        self._database.execute("INSERT OR IGNORE INTO fetched VALUES (?, ?)", self._row(uid))

    def forget(self) -> None:
        """The question was answered whole; the next time all is asked for again."""
        self._database.execute("DELETE FROM fetched WHERE question = ?", (self._question,))


def client_of(order: Order) -> tuple[DICOMwebClient, requests.Session]:
    """A client for the one address."""
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0
    session.verify = str(order.ca) if order.ca else True
    session.cert = (str(order.certificate), str(order.key)) if order.certificate else None
    if authorization := os.environ.get("FEDAI_DICOMWEB_AUTHORIZATION"):
        session.headers["Authorization"] = authorization
    client = DICOMwebClient(order.url, session=session, timeout=TIMEOUT_S)
    client.set_http_retry_params(retry=False)
    return client, session


def asked(call: Callable[[], Answer], pause: Callable[[float], None] = time.sleep) -> Answer:
    """The answer to a request, tried again with growing pauses where the archive is away, busy or at fault.

    Raises Stopped where it stays away, requests.HTTPError or ValueError where it is this question that it
    can't answer.
    """
    for attempt in count(1):
        try:
            return call()
        except requests.TooManyRedirects:
            raise Stopped("the archive sends elsewhere (a redirect); give the address that answers") from None
        except requests.exceptions.SSLError:
            raise Stopped("the archive's certificate is not of the authority that site.yaml names") from None
        except (requests.RequestException, ValueError) as error:
            _judge(error, attempt)
        pause(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1)))
    raise AssertionError


def _judge(error: Exception, attempt: int) -> None:
    """Nothing where another try is worth it; raises otherwise, as `asked` says."""
    code = _code_of(error)
    if code in (401, 403):
        raise Stopped(f"the archive doesn't let us in (HTTP {code})")
    if code in AWAY or (not code and isinstance(error, requests.RequestException)):
        if attempt >= ATTEMPTS:
            why = f"HTTP {code}" if code else type(error).__name__
            raise Stopped(f"the archive doesn't answer ({why}, {attempt} times)")
    elif 0 < code < 500 or attempt >= ATTEMPTS_AT_ONE:
        raise error


def _code_of(error: Exception) -> int:
    has_answer = isinstance(error, requests.HTTPError) and error.response is not None
    return error.response.status_code if has_answer else 0  # type: ignore[attr-defined]


def uids_of(search: Callable[..., list[dict[str, Any]]], tag: str, **of: Any) -> Iterator[str]:
    """What a query finds, page by page, whatever the archive's own limit is; "" for what has no valid UID."""
    before: list[str] = []
    offset = 0
    while True:
        found = asked(partial(search, limit=PAGE, offset=offset, **of))
        uids = [_uid(entry, tag) for entry in found]
        if not uids or uids == before:  # some archives know no offset
            return
        yield from uids
        before, offset = uids, offset + len(uids)


def _uid(entry: dict[str, Any], tag: str) -> str:
    values = entry.get(tag, {}).get("Value") or [""]
    return values[0] if isinstance(values[0], str) and UID.fullmatch(values[0]) else ""


def body_of(response: requests.Response) -> Iterator[bytes]:
    """The one part of a multipart/related answer, or an answer that is the object itself, in pieces.

    Raises ValueError where it ends early or has no part.
    """
    pieces = response.iter_content(inbox.PIECE)
    boundary = re.search(r'boundary="?([^";,]+)"?', response.headers.get("Content-Type", ""))
    if boundary is None:
        yield from pieces
        return
    end = b"\r\n--" + boundary[1].encode()
    held, has_begun = b"", False
    for piece in pieces:
        held += piece
        if not has_begun:
            _, has_header, rest = held.partition(b"\r\n\r\n")
            if not has_header and len(held) > HEADER_BYTES:
                break
            held, has_begun = (rest, True) if has_header else (held, False)
        if has_begun:
            if (at := held.find(end)) >= 0:
                yield held[:at]
                return
            yield held[: -len(end)]
            held = held[-len(end) :]
    raise ValueError("not a whole multipart answer")


def fetch(order: Order, tell: Callable[[str], None]) -> bool:
    """Fetch whatever matches; whether the archive gave out all of it. Raises Stopped."""
    client, session = client_of(order)
    memory = Memory(order.inbox, order.question)
    part = order.inbox / inbox.PARTS / f"dicomweb-{os.getpid()}"
    is_whole = True
    for study, series, instance in objects_of(client, order):
        if instance and memory.has(instance):
            continue
        try:
            if not (study and series and instance):
                raise ValueError("no UID")
            url = f"{order.url}/studies/{study}/series/{series}/instances/{instance}"
            path = asked(partial(_fetch_one, session, url, order.inbox, part))
        except (requests.HTTPError, ValueError, inbox.TooLarge):
            is_whole = False
            tell(f"failed {instance or series or study or 'unnamed'}")
        else:
            memory.add(instance)
            tell(f"kept {path.name}")
    if is_whole and not order.new_only:
        memory.forget()
    return is_whole


def _fetch_one(session: requests.Session, url: str, folder: Path, part: Path) -> Path:
    with closing(session.get(url, headers={"Accept": ACCEPT}, stream=True, timeout=TIMEOUT_S)) as response:
        response.raise_for_status()
        return inbox.store(folder, part, body_of(response))


def objects_of(client: DICOMwebClient, order: Order) -> Iterator[tuple[str, str, str]]:
    """(study, series, instance) of all that match. Raises Stopped where the archive refuses the question."""
    try:
        for study in uids_of(client.search_for_studies, STUDY, search_filters=order.studies):
            if not study:
                yield "", "", ""
                continue
            found = uids_of(
                client.search_for_series, SERIES, study_instance_uid=study, search_filters=order.series
            )
            for series in found:
                if not series:
                    yield study, "", ""
                    continue
                names = {"study_instance_uid": study, "series_instance_uid": series}
                for instance in uids_of(client.search_for_instances, INSTANCE, **names):
                    yield study, series, instance
    except (requests.HTTPError, ValueError) as error:
        why = f"HTTP {code}" if (code := _code_of(error)) else "no DICOM JSON"
        raise Stopped(f"the archive doesn't answer the question ({why})") from None


def main() -> None:
    """Fetch what the line on standard input orders."""
    warnings.simplefilter("ignore")
    order = Order.model_validate_json(sys.stdin.readline())
    with (order.inbox / ".fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for part in (order.inbox / inbox.PARTS).glob("dicomweb-*"):
            part.unlink()
        try:
            _tell("finished" if fetch(order, _tell) else "stopped some objects were not given out")
        except Stopped as error:
            _tell(f"stopped {error}")
        except OSError as error:
            _tell(f"stopped the disk can't be written: {error.strerror}")


def _tell(line: str) -> None:
    """Waits while nobody reads; ends with whoever read."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
