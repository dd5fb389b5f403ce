"""Tokens and roles, at a home and through the command line; no server runs here."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from fedai_server.home import ServerHome
from fedai_server.ledger import ledger_of, verify
from fedai_server.roles import OBSERVED, VARIABLE, Holder, holder_of, holders, make_token, revoke
from fedai_server.runs import RunDatabase
from federation_processes import make_home
from server_commands import Capture, told
from studies import small_study

from fedai.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> ServerHome:
    return make_home(tmp_path / "home")


def last_line(home: ServerHome) -> dict[str, Any]:
    line = ledger_of(home).last()
    assert line
    return {key: line[key] for key in line if key not in ("seq", "time", "previous", "hash", "signature")}


def test_the_homes_own_token_is_a_coordinators_and_named_control(home: ServerHome) -> None:
    assert holder_of(home, home.control_token.read_bytes()) == Holder("control", "coordinator")
    assert holder_of(home, b"") is None
    assert holder_of(home, b"guessed") is None
    home.control_token.write_bytes(b"")
    assert holder_of(home, b"") is None


def test_a_made_token_is_its_holders_alone_and_the_home_keeps_its_digest(
    home: ServerHome, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "eve.token"
    code, said = told(
        capsys, "server", "token", home.folder, "--role", "observer", "--name", "eve", "--out", file
    )
    assert (code, said["name"], said["role"]) == (0, "eve", "observer")
    token = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(token) >= 48
    assert token.decode() not in json.dumps(said)
    kept = [path for path in home.folder.rglob("*") if path.is_file()]
    assert not [path for path in kept if token in path.read_bytes()]
    assert stat.S_IMODE((home.tokens / "eve.json").stat().st_mode) == 0o600
    assert holder_of(home, token) == Holder("eve", "observer")
    assert last_line(home) == {"operation": "make token", "by": "control", "role": "coordinator",
                               "token": "eve", "token_role": "observer"}  # fmt: skip


def test_an_observer_may_list_and_watch_and_a_coordinator_everything() -> None:
    eve, ann = Holder("eve", "observer"), Holder("ann", "coordinator")
    paths = [*OBSERVED, "/v1/control/start-run", "/v1/control/stop-run", "/v1/control/register-node", "/docs"]
    assert {path for path in paths if eve.may(path)} == OBSERVED
    assert all(ann.may(path) for path in paths)
    assert (eve.may(), ann.may()) == (False, True)
    assert not Holder("ann", "coordinator", revoked=True).may("/v1/control/list-runs")


def test_a_revoked_token_is_known_and_may_nothing_and_its_name_is_not_given_again(
    home: ServerHome, tmp_path: Path, capsys: Capture
) -> None:
    make_token(home, "eve", "observer", tmp_path / "eve.token")
    assert told(capsys, "server", "token", home.folder, "--revoke", "eve")[1]["revoked"] is True
    assert told(capsys, "server", "token", home.folder, "--revoke", "eve")[1]["revoked"] is False
    assert last_line(home)["operation"] == "revoke token"
    found = holder_of(home, (tmp_path / "eve.token").read_bytes())
    assert found == Holder("eve", "observer", revoked=True)
    assert told(capsys, "server", "token", home.folder, "--name", "eve", "--out", tmp_path / "new")[0] == 2
    assert not (tmp_path / "new").exists()
    assert told(capsys, "server", "token", home.folder)[1]["tokens"] == [
        {"name": "control", "role": "coordinator", "revoked": False},
        {"name": "eve", "role": "observer", "revoked": True},
    ]


@pytest.mark.parametrize("name", ["control", "server", "Eve", "", "../eve", "a b"])
def test_a_token_has_a_plain_name_of_its_own(name: str, home: ServerHome, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        make_token(home, name, "observer", tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_token_is_not_written_over_a_file_nor_into_the_home(home: ServerHome, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("kept")
    for file in (tmp_path / "there", home.folder / "eve.token"):
        with pytest.raises(ConfigError, match="exists or is in the home"):
            make_token(home, "eve", "observer", file)
    with pytest.raises(ConfigError, match="can't write"):
        make_token(home, "eve", "observer", tmp_path / "nowhere" / "eve.token")
    assert (tmp_path / "there").read_text() == "kept"
    assert holders(home) == [Holder("control", "coordinator")]


@pytest.mark.parametrize("name", ["control", "nobody"])
def test_what_can_not_be_revoked_is_told(name: str, home: ServerHome) -> None:
    with pytest.raises(ConfigError, match="could be revoked"):
        revoke(home, name)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff", b'{"role": "king", "sha256": "", "revoked": false}']
)
def test_a_record_that_was_changed_counts_as_revoked(
    content: bytes, home: ServerHome, tmp_path: Path
) -> None:
    make_token(home, "eve", "coordinator", tmp_path / "eve.token")
    (home.tokens / "eve.json").write_bytes(content)
    assert all(holder.revoked for holder in holders(home)[1:])
    assert holder_of(home, b"") is None


@pytest.fixture
def as_observer(home: ServerHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "eve.token"
    make_token(home, "eve", "observer", file)
    monkeypatch.setenv(VARIABLE, str(file))
    return file


COMMANDS = {
    "pause": ["run", "pause", "small-1"], "resume": ["run", "resume", "small-1"],
    "stop": ["run", "stop", "small-1"], "renew": ["server", "renew"], "retire": ["server", "retire", "north"],
    "make token": ["server", "token", "--name", "more", "--out", "more.token"],
    "revoke token": ["server", "token", "--revoke", "eve"],
}  # fmt: skip


@pytest.mark.parametrize("operation", COMMANDS)
def test_a_command_that_changes_something_is_refused_to_an_observer_and_the_ledger_says_whose_it_was(
    operation: str, home: ServerHome, as_observer: Path, capsys: Capture
) -> None:
    runs = RunDatabase(home.runs_database)
    runs.plan(small_study())
    runs.move("small-1", "running")
    noun, verb, *rest = COMMANDS[operation]
    where = ["--home", home.folder] if noun == "run" else [home.folder]
    before = {path: path.read_bytes() for path in (home.folder / "pki").iterdir()}
    code, said = told(
        capsys, noun, verb, *(where if noun == "server" else []), *rest, *(where if noun == "run" else [])
    )
    assert (code, said["error"]["code"]) == (4, "REFUSED")
    line = last_line(home)
    assert (line["operation"], line["by"], line["role"]) == (operation, "eve", "observer")
    assert line["refused"] == "the token's role doesn't allow it"
    assert runs.get("small-1").state == "running"
    assert before == {path: path.read_bytes() for path in (home.folder / "pki").iterdir()}
    assert holder_of(home, as_observer.read_bytes()) == Holder("eve", "observer")
    assert as_observer.read_text() not in home.ledger.read_text()
    assert verify(home).lines == 1


def test_what_an_observer_may_see_at_the_home_needs_no_line(
    home: ServerHome, as_observer: Path, capsys: Capture
) -> None:
    for words in (["run", "list", "--home", home.folder], ["server", "token", home.folder],
                  ["server", "ledger", "show", home.folder]):  # fmt: skip
        assert told(capsys, *words)[0] == 0
    assert not home.ledger.exists()


def test_a_token_that_is_nobodys_or_no_token_is_refused_without_being_quoted(
    home: ServerHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    file = tmp_path / "odd.token"
    monkeypatch.setenv(VARIABLE, str(file))
    assert told(capsys, "server", "renew", home.folder)[0] == 2
    for content, expected in ((b"guessed-4711", 4), (b"", 2), (b"guessed\n4711", 2), ("gü".encode(), 2)):
        file.write_bytes(content)
        code, said = told(capsys, "server", "renew", home.folder)
        assert code == expected
        assert "4711" not in json.dumps(said)
    assert not home.ledger.exists()
