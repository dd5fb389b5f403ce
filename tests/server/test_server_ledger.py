"""The server's ledger: what commands and calls leave in it, at a home and at a real SuperLink."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fedai_server import pki
from fedai_server.bundle import release_bundle
from fedai_server.calls import told_of
from fedai_server.control import Control
from fedai_server.gate import TOKEN_HEADER
from fedai_server.home import ServerHome
from fedai_server.launch import halt, launch
from fedai_server.ledger import WRITTEN, ledger_of, note, verify
from fedai_server.roles import OBSERVED, VARIABLE, make_token, revoke
from fedai_server.runs import RunDatabase
from federation_processes import RunningServer, logs_of, make_home, make_site_key, start_server, wait_for
from server_commands import Capture, told
from studies import small_study

from fedai.cli.app import run
from fedai.errors import DataError, FederationError, RefusedByPolicy
from fedai.fingerprints import key_fingerprint
from fedai.ledger import Ledger
from fedai.release import BUNDLE_SHA256

PLANTED = "Planted Name 4711"


@pytest.fixture
def home(tmp_path: Path) -> ServerHome:
    return make_home(tmp_path / "home")


def lines(home: ServerHome, since: int = 0) -> list[dict[str, Any]]:
    """What was done, without time, numbers and hashes."""
    found = list(ledger_of(home).lines())[since:]
    kept = set(WRITTEN) - {"by", "role", "operation", "refused"}
    return [{key: line[key] for key in line if key not in kept} for line in found]


CONTROL = {"by": "control", "role": "coordinator"}


def test_a_new_home_has_a_ledger_with_its_first_line(tmp_path: Path, capsys: Capture) -> None:
    assert run(["server", "init", str(tmp_path / "home")]) == 0
    assert run(["server", "renew", str(tmp_path / "home")]) == 0
    code, said = told(capsys, "server", "ledger", "show", tmp_path / "home")
    assert (code, [line["operation"] for line in said["lines"]]) == (0, ["init", "renew"])
    whole = {"ok": True, "lines": 2, "heads": 2, "witnessed": 0, "unheaded": 0, "intact": True}
    assert told(capsys, "server", "ledger", "verify", tmp_path / "home") == (0, whole)
    assert run(["server", "ledger", "show", str(tmp_path / "home"), "--last", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[2:] == ["control", "coordinator", "renew"]


def test_pause_resume_and_stop_that_go_straight_to_the_run_database_are_written_down(
    home: ServerHome, capsys: Capture
) -> None:
    runs = RunDatabase(home.runs_database)
    runs.plan(small_study())
    runs.attach("small-1", 77)
    runs.move("small-1", "running")
    for verb in ("pause", "resume"):
        assert told(capsys, "run", verb, "small-1", "--home", home.folder)[0] == 0
    runs.move("small-1", "finished")
    assert told(capsys, "run", "stop", "small-1", "--home", home.folder)[0] == 0
    named = {"run": "small-1", "number": "77"}
    operations = ("pause", "resume", "stop")
    assert lines(home) == [{"operation": operation, **CONTROL, **named} for operation in operations]


def test_where_no_line_can_be_written_nothing_is_done(home: ServerHome, capsys: Capture) -> None:
    runs = RunDatabase(home.runs_database)
    runs.plan(small_study())
    runs.move("small-1", "running")
    home.ledger.mkdir()
    for verb in ("pause", "stop"):
        code, said = told(capsys, "run", verb, "small-1", "--home", home.folder)
        assert (code, "nothing was done" in said["error"]["message"]) == (3, True)
    before = (home.pki / "server.pem").read_bytes()
    assert told(capsys, "server", "renew", home.folder)[0] == 3
    assert (home.pki / "server.pem").read_bytes() == before
    assert runs.get("small-1").state == "running"


def test_a_line_that_somebody_appended_is_named_and_stops_the_next(home: ServerHome, capsys: Capture) -> None:
    note(home, "renew")
    Ledger(home.ledger).append(operation="stop", by="eve", role="coordinator")
    code, said = told(capsys, "server", "ledger", "verify", home.folder)
    assert (code, said["error"]["where"]) == (3, f"{home.ledger}:2")
    code, said = told(capsys, "server", "renew", home.folder)
    assert (code, "line 2: it isn't signed" in said["error"]["message"]) == (3, True)
    assert "fedai server ledger verify" in said["error"]["hint"]
    assert told(capsys, "server", "doctor", home.folder)[0] == 1


def test_a_copy_of_the_heads_tells_what_was_cut_off(
    home: ServerHome, tmp_path: Path, capsys: Capture
) -> None:
    for _ in range(3):
        note(home, "renew")
    copy = tmp_path / "heads.jsonl"
    copy.write_bytes(home.ledger_heads.read_bytes())
    for path in (home.ledger, home.ledger_heads):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    assert verify(home).lines == 1
    with pytest.raises(DataError, match="line 2: it is missing"):
        verify(home, copy)
    assert told(capsys, "server", "ledger", "verify", home.folder, "--witness", tmp_path / "none")[0] == 2


def test_an_older_home_begins_its_ledger_with_a_key(home: ServerHome) -> None:
    home.ledger_key.unlink()
    home.ledger_key.with_name("ledger.key.pub").unlink()
    note(home, "renew")
    assert (verify(home).lines, verify(home).heads) == (1, 1)


def test_what_is_no_name_or_number_is_not_written_down() -> None:
    from flwr.proto.control_pb2 import RegisterNodeRequest, StartAutomationRequest, StartRunRequest
    from flwr.proto.fab_pb2 import Fab

    odd = RegisterNodeRequest(name=PLANTED, public_key=PLANTED.encode(), location=PLANTED)
    named = {"site": "an odd name", "key": "unreadable"}
    assert told_of("/v1/control/register-node", odd.SerializeToString()) == ("register-node", named)
    start = StartRunRequest(
        fab=Fab(content=b"bundle"), app_spec=PLANTED, user_prompt=PLANTED, federation=PLANTED
    )
    bundle = {"bundle": hashlib.sha256(b"bundle").hexdigest()}
    assert told_of("/v1/control/start-run", start.SerializeToString()) == ("start-run", bundle)
    later = StartAutomationRequest(start_run_request=start)
    assert told_of("/v1/control/start-automation", later.SerializeToString()) == ("start-automation", bundle)
    assert told_of("/v1/control/stop-run", b"\xff\xff") == ("stop-run", {"body": "unreadable"})
    assert told_of(f"/v1/{PLANTED}", b"") == ("an odd path", {})
    assert told_of("/docs", PLANTED.encode()) == ("/docs", {})


def test_flower_has_the_calls_and_numbers_that_the_ledger_names() -> None:
    from fedai_server.calls import NUMBERS
    from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

    paths = {path for _, path in PROTOBUF_REQUEST_TYPES}
    calls = {
        "start-run",
        "stop-run",
        "register-node",
        "unregister-node",
        "list-runs",
        "list-nodes",
        "stream-logs",
    }
    assert paths >= OBSERVED | {f"/v1/control/{call}" for call in calls}
    fields = {
        field.name
        for (_, path), kind in PROTOBUF_REQUEST_TYPES.items()
        if path.startswith("/v1/control/")
        for field in kind.DESCRIPTOR.fields
    }
    assert fields >= {*NUMBERS, "fab", "override_config", "public_key", "start_run_request"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of this module's own, whose ledger nobody else writes."""
    with start_server(make_home(tmp_path_factory.mktemp("ledger") / "home")) as running:
        yield running


@pytest.mark.federation
def test_admission_a_run_and_retirement_are_written_down_by_name_and_digest_before_they_are_done(
    own: RunningServer, tmp_path: Path, capsys: Capture
) -> None:
    home, since = own.home, len(lines(own.home))
    _, public = make_site_key(tmp_path)
    key = key_fingerprint(pki.read_public_key(public.read_bytes()))
    assert told(capsys, "server", "admit", home.folder, "north", public)[0] == 0
    study = small_study(sites=["north"], rounds={"waiting_s": 600, "quorum": 1})
    name = launch(home, study)
    number = str(RunDatabase(home.runs_database).get(name).flower_id)
    halt(home, name)
    assert told(capsys, "server", "retire", home.folder, "north")[0] == 0
    found = lines(home, since)
    node = found[-1].pop("node")
    assert int(node)
    plain = [line for line in found if line["operation"] not in ("list-nodes", "list-runs", "stop-run")]
    stopped = {"operation": "stop-run", **CONTROL, "number": number}
    assert all(line == stopped for line in found if line["operation"] == "stop-run")
    assert plain == [
        {"operation": "admit", **CONTROL, "site": "north", "key": key},
        {"operation": "register-node", **CONTROL, "key": key, "site": "north"},
        {"operation": "start", **CONTROL, "run": name, "study": study.sha256},
        {"operation": "start-run", **CONTROL, "bundle": BUNDLE_SHA256, "study": study.sha256},
        {"operation": "stop", **CONTROL, "run": name, "number": number},
        {"operation": "retire", **CONTROL, "site": "north", "key": key},
        {"operation": "unregister-node", **CONTROL},
    ]
    assert {"list-nodes", "list-runs"} <= {line["operation"] for line in found}
    assert home.control_token.read_text() not in home.ledger.read_text()
    assert verify(home).lines == len(lines(home))


@pytest.mark.federation
def test_an_observer_lists_and_watches_and_is_refused_what_changes_something(
    own: RunningServer, tmp_path: Path
) -> None:
    home = own.home
    make_token(home, "eve", "observer", tmp_path / "eve.token")
    with Control(home) as control:
        number = control.start_run(release_bundle(), "no study")
    since = len(lines(home))
    with Control(home, token=tmp_path / "eve.token") as control:
        assert number in {one.run_id for one in control.list_runs()}
        control.list_sites()
        for forbidden in (
            lambda: control.start_run(release_bundle(), "no study"),
            lambda: control.stop_run(number),
        ):
            with pytest.raises(RefusedByPolicy, match="role doesn't allow"):
                forbidden()
    eve = {"by": "eve", "role": "observer"}
    refused = {"refused": "the token's role doesn't allow it"}
    study = hashlib.sha256(b"no study").hexdigest()
    assert [line for line in lines(home, since) if line["by"] == "eve"] == [
        {"operation": "list-runs", **eve},
        {"operation": "list-nodes", **eve},
        {"operation": "start-run", **eve, "bundle": BUNDLE_SHA256, "study": study, **refused},
        {"operation": "list-runs", **eve, "number": str(number)},
        {"operation": "stop-run", **eve, "number": str(number), **refused},
    ]
    with Control(home) as control:
        control.stop_run(number)


@pytest.mark.federation
def test_a_run_is_not_even_planned_for_an_observer(
    own: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = own.home
    with Control(home) as control:
        control.register_site("watched", pki.read_public_key(make_site_key(tmp_path)[1].read_bytes()))
    make_token(home, "ivy", "observer", tmp_path / "ivy.token")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "ivy.token"))
    study = small_study(name="ivys", sites=["watched"], rounds={"quorum": 1})
    with pytest.raises(RefusedByPolicy, match="start: the token's role"):
        launch(home, study)
    assert not [one for one in RunDatabase(home.runs_database).all() if one.name.startswith("ivys")]
    ivy = {"by": "ivy", "role": "observer", "refused": "the token's role doesn't allow it"}
    assert lines(home)[-1] == {"operation": "start", **ivy, "run": "ivys-1", "study": study.sha256}


@pytest.mark.federation
def test_a_token_that_is_revoked_is_refused_at_once_and_a_stranger_by_name_of_nobody(
    own: RunningServer, tmp_path: Path
) -> None:
    home = own.home
    make_token(home, "max", "coordinator", tmp_path / "max.token")
    with Control(home, token=tmp_path / "max.token") as control:
        control.list_runs()
        revoke(home, "max")
        with pytest.raises(RefusedByPolicy, match="revoked"):
            control.list_runs()
    assert lines(home)[-1] == {"operation": "list-runs", "by": "max", "role": "coordinator",
                               "refused": "the token was revoked"}  # fmt: skip
    count = len(lines(home))
    (tmp_path / "guess").write_text("guessed-4711")
    with Control(home, token=tmp_path / "guess") as control, pytest.raises(FederationError):
        control.list_runs()
    assert len(lines(home)) == count
    assert "guessed-4711" not in logs_of(home) + home.ledger.read_text()


@pytest.mark.federation
@pytest.mark.slow
def test_who_follows_the_logs_of_a_run_is_written_down(own: RunningServer) -> None:
    from flwr.proto.control_pb2 import StreamLogsRequest

    with Control(own.home) as control:
        number = control.start_run(release_bundle(), "no study")
        wait_for(
            lambda: {one.run_id: one.status for one in control.list_runs()}[number] == "finished",
            240,
            logs_of(own.home),
        )
        list(control._client.StreamLogs(StreamLogsRequest(run_id=number)))
    assert {"operation": "stream-logs", **CONTROL, "number": str(number)} in lines(own.home)


@pytest.mark.federation
def test_a_ledger_that_can_not_be_continued_stops_every_call_and_says_so(own: RunningServer) -> None:
    home = own.home
    with Control(home) as control:
        control.list_runs()
        whole = home.ledger.read_bytes()
        Ledger(home.ledger).append(operation="stop-run", by="control", role="coordinator")
        forged = home.ledger.read_bytes()
        with pytest.raises(
            FederationError, match="couldn't be written to the server's ledger; nothing was done"
        ):
            control.start_run(release_bundle(), "no study")
        assert home.ledger.read_bytes() == forged
        assert "it isn't signed" in (home.logs / "superlink.log").read_text()
        assert httpx.get(f"http://{home.loopback_address}/health", trust_env=False).status_code == 200
        home.ledger.write_bytes(whole)
        control.list_runs()
    assert verify(home).lines == len(lines(home))
    assert TOKEN_HEADER not in home.ledger.read_text()
