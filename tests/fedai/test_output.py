from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fedai.cli.output import (
    check_targets,
    emit,
    emit_error,
    file_progress,
    plain,
    progress_line,
    table,
    when,
)
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


def test_off_a_terminal_every_five_hundredth_file_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with file_progress() as progress:
        for done in range(1, 1002):
            progress(done, 0 if done < 600 else 1001)
    assert capsys.readouterr().err.splitlines() == ["500 of ? files", "1000 of 1001 files"]


def test_on_a_terminal_a_bar_ends_with_its_work_also_where_the_number_of_files_is_not_known() -> None:
    code = "from fedai.cli.output import file_progress\nwith file_progress() as p: p(1, 0)\nprint('after')"
    far, near = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=near, text=True, check=True
    )
    os.close(near)
    shown = os.read(far, 65536).decode()
    os.close(far)
    assert done.stdout == "after\n"
    assert "files" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"


def test_values_are_shown_as_a_person_writes_them() -> None:
    assert plain(["east", "north"]) == "east, north"
    assert plain({"sites": ("east",), "alone": False}) == "sites east, alone no"
    assert (plain(None), plain(3), plain(True)) == ("", "3", "yes")


def test_times_are_shown_with_their_zone() -> None:
    assert when("2026-05-01T11:30:00.123+02:00") == "2026-05-01 09:30:00 UTC"
    assert (when(""), when("now"), when("2026-05-01T11:30:00")) == ("", "now", "2026-05-01T11:30:00")


def test_a_file_that_is_there_is_written_over_only_by_force(tmp_path: Path) -> None:
    there = tmp_path / "report.html"
    there.write_text("mine")
    with pytest.raises(ConfigError, match=r"report.html is there already .*--force"):
        check_targets(tmp_path / "new.html", there, force=False)
    check_targets(there, force=True)
    check_targets(tmp_path / "new.html", force=False)
    with pytest.raises(ConfigError, match="is a folder"):
        check_targets(tmp_path, force=True)
    with pytest.raises(ConfigError, match="there is no folder"):
        check_targets(tmp_path / "gone" / "new.html", force=True)
