from __future__ import annotations

import json

import pytest

from fedai.cli.output import emit, emit_error, progress_line, table
from fedai.errors import ConfigError


def test_a_result_is_one_json_object_or_lines(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"run": "x-1", "who": "홍길동"}, as_json=True, lines=["never shown"])
    out = capsys.readouterr().out
    assert json.loads(out) == {"ok": True, "run": "x-1", "who": "홍길동"}
    assert out.isascii()
    assert out.count("\n") == 1
    emit({"run": "x-1"}, as_json=False, lines=["one", "two"])
    assert capsys.readouterr().out == "one\ntwo\n"


def test_what_json_does_not_know_is_never_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        emit({"auroc": float("nan")}, as_json=True)
    assert capsys.readouterr().out == ""


def test_an_error_is_json_on_stdout_or_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigError("no such key", hint="did you mean 'seed'?", where="s.yaml:3")
    emit_error(error, as_json=True)
    told = json.loads(capsys.readouterr().out)
    expected = {
        "code": "CONFIG",
        "message": "no such key",
        "hint": "did you mean 'seed'?",
        "where": "s.yaml:3",
    }
    assert told == {"ok": False, "error": expected}
    emit_error(error, as_json=False)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: s.yaml:3: no such key\n  next: did you mean 'seed'?\n"


def test_a_path_that_is_no_text_can_still_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    emit_error(ConfigError("can't read \udcff.yaml"), as_json=True)
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "can't read \udcff.yaml"


def test_progress_leaves_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    progress_line("500 of 1000 files")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "500 of 1000 files\n")


def test_columns_are_aligned_and_lines_have_no_trailing_blanks() -> None:
    lines = table(("site", "cases"), [("north", 7), ("a-long-name", 1234), ("", "")])
    assert lines == ["site         cases", "north        7", "a-long-name  1234", ""]
