from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from fedai import __version__, errors
from fedai.cli import app
from fedai.cli.app import OWN_COMMANDS, run

ROOT = Path(__file__).parents[2]
STUDY = str(ROOT / "configs" / "studies" / "cxr-nodule.yaml")
HEAVY = (
    "torch",
    "flwr",
    "pydicom",
    "monai",
    "scipy",
    "cryptography",
    "fedai_server",
    "numpy",
    "pydantic",
    "yaml",
)
COUNT = """
import sys
from fedai.cli.app import run
code = run({arguments})
print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


def help_of(*nouns: str) -> tuple[str, list[str]]:
    """The help text, and the heavy modules it loaded; `benchmarks/startup` has the seconds."""
    code = COUNT.format(arguments=[*nouns, "--help"], heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout, eval(done.stderr.splitlines()[-1])  # noqa: S307


@pytest.mark.parametrize("nouns", [(), ("site",), ("site", "ledger"), ("study",), ("demo",), ("compare",)])
def test_help_loads_nothing_heavy(nouns: tuple[str, ...]) -> None:
    text, loaded = help_of(*nouns)
    assert "Usage: fedai" in text
    assert loaded == []


@pytest.mark.parametrize("nouns", [("server",), ("run",)])
def test_the_servers_help_loads_neither_torch_nor_flower(nouns: tuple[str, ...]) -> None:
    text, loaded = help_of(*nouns)
    assert "Usage: fedai" in text
    assert not {"torch", "flwr", "monai", "pydicom", "fedai_site", "numpy"} & set(loaded)


def test_the_first_help_names_every_noun_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    lines = [
        line.split(maxsplit=1)
        for line in capsys.readouterr().out.partition("Commands:")[2].splitlines()
        if line
    ]
    assert {line[0] for line in lines} == {*OWN_COMMANDS, "site", "server", "run"}
    assert all(len(line) == 2 for line in lines)


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command line whose command raises."""

    def raise_it() -> None:
        raise error

    monkeypatch.setattr(app._Nouns, "get_command", lambda *_: click.Command("x", callback=raise_it))
    return run(["x", *arguments])


CODES = {
    errors.ConfigError: 2,
    errors.DataError: 3,
    errors.RefusedByPolicy: 4,
    errors.FederationError: 5,
    errors.OutOfTime: 6,
    errors.TrainingError: 1,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_each_error_ends_with_its_code_and_says_what_next(
    kind: type[errors.FedaiError],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fail_with(kind("it broke", hint="mend it", where="here"), monkeypatch) == code
    assert capsys.readouterr().err == "error: here: it broke\n  next: mend it\n"


def test_a_bug_says_that_it_is_one_and_where_but_not_what_a_file_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(ZeroDivisionError("Hong^Gildong"), monkeypatch) == 70
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "builtins.ZeroDivisionError" in told
    assert "test_app.py" in told
    assert "this is a bug in fedai" in told
    assert "Hong" not in told
    monkeypatch.setenv("FEDAI_DEBUG", "1")
    assert fail_with(ZeroDivisionError("oops"), monkeypatch) == 70
    assert "ZeroDivisionError: oops" in capsys.readouterr().err


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fail_with(KeyboardInterrupt(), monkeypatch) == 130


def test_a_full_disk_is_no_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(OSError(28, "No space left on device", "/data/x"), monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: No space left on device: /data/x\n")


def json_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["study", "check", "/gone.yaml"], 2),
        (["study", "check"], 2),
        (["study", "check", STUDY, "--no-such-option"], 2),
        (["study", "no-such-verb"], 2),
        (["no-such-noun"], 2),
        (["site", "status", "/gone"], 2),
        (["compare", "no-such-run"], 2),
        (["run", "list", "--home", "/gone"], 2),
    ],
)
def test_every_error_is_one_json_object_where_json_is_asked_for(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, told = json_of(arguments, capsys)
    assert ended == code
    assert told["ok"] is False
    assert set(told["error"]) == {"code", "message", "hint", "where"}
    assert told["error"]["code"] == "CONFIG"


def test_a_bug_is_json_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("fedai.study.read_study", lambda _: 1 / 0)
    code, told = json_of(["study", "check", STUDY], capsys)
    assert code == 70
    assert told["error"]["code"] == "BUG"


def test_study_check_says_sound_or_names_every_problem(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = json_of(["study", "check", STUDY], capsys)
    assert (code, told["ok"], told["study"], len(told["study_hash"])) == (0, True, "cxr-nodule", 64)
    assert run(["study", "check", str(Path(__file__).parent / "ten_mistakes.yaml")]) == 2
    assert capsys.readouterr().err.count("ten_mistakes.yaml:") == 10


def test_study_check_builds_the_network_where_it_is_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "check", STUDY, "--build"]) == 0
    assert "parameters" in capsys.readouterr().out


def test_study_show_gives_the_whole_study_with_the_same_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fedai.study import read_study

    assert run(["study", "show", STUDY]) == 0
    whole = tmp_path / "whole.yaml"
    whole.write_text(capsys.readouterr().out, encoding="utf-8")
    assert read_study(whole).sha256 == read_study(Path(STUDY)).sha256
    assert "deadline_s" in whole.read_text(encoding="utf-8")


@pytest.mark.parametrize("scratch", ["policy.yaml.partial", ".policy.yaml.partial"])
def test_an_error_names_a_file_as_it_will_be_called(
    scratch: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(PermissionError(13, "Permission denied", f"/home/{scratch}"), monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: Permission denied: /home/policy.yaml\n")
    renamed = OSError(30, "Read-only file system", f"/home/{scratch}", None, "/home/final")
    assert fail_with(renamed, monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: Read-only file system: /home/final\n")


def verbs(command: click.Command, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield before, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from verbs(found, *before, name)


def test_no_help_has_a_backslash_and_the_defaults_are_told() -> None:
    helps = {words: command.get_help(click.Context(command)) for words, command in verbs(app.fedai)}
    assert {words: text for words, text in helps.items() if "\\" in text} == {}
    assert "[default: 20]" in helps["site", "ledger", "show"]
    assert "hash" not in helps["study",].partition("Commands:")[0]


def test_a_help_says_what_each_argument_is() -> None:
    shown = dict(verbs(app.fedai))["server", "admit"]
    said = shown.get_help(click.Context(shown))
    assert "The site's keys/agent.pub.  [required]" in said
    assert said.count("The site's keys/agent.pub.") == 1
    silent = {
        (*words, parameter.name)
        for words, command in verbs(app.fedai)
        for parameter in command.params
        if isinstance(parameter, click.Argument)
        and (record := parameter.get_help_record(click.Context(command))) is not None
        and record[1].strip("[]") in ("", "required")
    }
    assert silent == set()


def test_a_mistyped_verb_is_answered_with_one_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["studdy"], ["study", "chekc"], ["site", "ledger", "shwo"]):
        assert run(words) == 2
        assert capsys.readouterr().err.count("Did you mean") == 1
