"""Logs as JSON, a line each, that say which run, round, task and site they are about (`log_format: json`).

A process works on one run at a time: what it works on is said once (`about`) and holds for all its threads.
A line may name another site or run with `extra={"site": ...}`.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]
FIELDS = ("site", "run", "round", "task")
PLAIN = "%(asctime)s %(levelname)s %(name)s %(message)s"
_subject: dict[str, str | int] = {}


def about(**facts: str | int) -> None:
    """From now on this process's lines are about these (of FIELDS), and no longer about others."""
    global _subject
    _subject = {name: fact for name, fact in facts.items() if fact}


class TextLines(logging.Formatter):
    """A line of text, with the time in UTC as the ledger has it, and its zone."""

    default_msec_format = "%s,%03d UTC"

    def __init__(self) -> None:
        super().__init__(PLAIN)
        self.converter = time.gmtime


class JsonLines(logging.Formatter):
    """`at` (UTC), `level`, `logger`, `text`; what it is about; `trace` of an exception."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = {"at": at, "level": record.levelname, "logger": record.name, "text": record.getMessage()}
        own = {name: record.__dict__[name] for name in FIELDS if record.__dict__.get(name)}
        trace = {"trace": self.formatException(record.exc_info)} if record.exc_info else {}
        return json.dumps({**told, **_subject, **own, **trace}, default=str)


def formatter(log_format: LogFormat) -> logging.Formatter:
    """What writes lines in this format."""
    return JsonLines() if log_format == "json" else TextLines()


def write_json(log_format: LogFormat) -> None:
    """Let this process's lines go to stderr as JSON, where that is the format; else nothing is changed."""
    if log_format == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        ours = logging.getLogger("fedai")
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False
