from __future__ import annotations

import json
import logging
import logging.config
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest
from fedai_server.superlink import _log_configuration

from fedai.logs import JsonLines, about, formatter


@pytest.fixture(autouse=True)
def nothing_said() -> Iterator[None]:
    yield
    about()


def line(text: str, **more: object) -> dict[str, object]:
    record = logging.LogRecord("fedai.x", logging.WARNING, "f", 1, text, ("a\nb",), None)
    record.__dict__.update(more)
    return dict(json.loads(JsonLines().format(record)))


def test_a_line_says_what_the_process_is_about_until_that_is_another() -> None:
    about(run="small-1", round=2, site="north")
    told = line("%s")
    assert (told["text"], told["level"], told["logger"]) == ("a\nb", "WARNING", "fedai.x")
    assert (told["run"], told["round"], told["site"]) == ("small-1", 2, "north")
    assert datetime.fromisoformat(str(told["at"])).utcoffset() is not None
    assert line("%s", site="east")["site"] == "east"
    about(run="small-2", round=0)
    assert set(line("%s")) == {"at", "level", "logger", "text", "run"}


def test_text_has_its_time_in_utc_and_says_so() -> None:
    record = logging.LogRecord("fedai.x", logging.WARNING, "f", 1, "hello", (), None)
    record.created, record.msecs = 0.25, 250
    assert formatter("text").format(record) == "1970-01-01 00:00:00,250 UTC WARNING fedai.x hello"


def test_a_processs_lines_are_json_where_that_is_the_format_and_the_superlinks_too() -> None:
    code = "import logging, fedai.logs as l; l.write_json('json'); logging.getLogger('fedai.x').info('hi')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr)["text"] == "hi"
    configured = _log_configuration("json")["formatters"]["http"]
    made = logging.config.DictConfigurator({"version": 1}).configure_formatter(configured)
    assert isinstance(made, JsonLines)
    assert "JsonLines" not in str(_log_configuration("text"))
