"""Each inner part of Flower (and uvicorn) that the server stands on. A red test here means: Flower moved."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from fedai_server.gate import FLEET_CALLS, HEALTH_PATH, RUNTIME_PREFIX
from fedai_server.superlink import MUST_BE_UNSET, OFF_SWITCHES
from federation_processes import make_home

from fedai.checks import TESTED_FLOWER


def test_the_installed_flower_is_the_one_that_was_tested() -> None:
    assert version("flwr") == TESTED_FLOWER
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert f"flwr=={TESTED_FLOWER}" in project["project"]["dependencies"]


def test_the_superlinks_configuration_has_the_fields_that_we_fill() -> None:
    from flwr.superlink.config_loader import SuperLinkLifespanConfig

    assert {field.name for field in dataclasses.fields(SuperLinkLifespanConfig)} == {
        "control_address", "health_server_address", "host", "port", "insecure", "certificates",
        "superexec_auth_secret", "authn_plugin", "event_log_plugin", "fleet_event_log_plugin",
        "enable_event_log", "artifact_provider", "enable_supernode_auth", "fleet_api_type",
        "fleet_api_address", "simulation",
        "ssl_ca_certfile", "ssl_certfile", "ssl_keyfile", "database", "isolation",
        "runtime_dependency_install",
    }  # fmt: skip


def test_the_application_is_made_from_a_configuration_and_a_lifespan() -> None:
    from flwr.superlink.main import create_app

    assert list(inspect.signature(create_app).parameters) == ["config", "superlink_lifespan_class"]


def test_the_constants_of_the_superlink_are_what_we_write() -> None:
    from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE

    assert (ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE) == ("process", "grpc-rere")


def test_the_application_requires_site_keys_and_knows_the_superexecs_secret(tmp_path: Path) -> None:
    from fedai_server.superlink import make_application

    home = make_home(tmp_path / "home")
    application = make_application(home)
    assert application.state.enable_supernode_auth is True
    assert application.state.superexec_auth_secret == home.superexec_secret.read_bytes()
    assert application.state.superlink_lifespan.config.isolation == "process"
    assert home.database.stat().st_mode & 0o077 == 0


def test_the_lifespan_starts_no_process_and_no_listener_in_process_isolation(tmp_path: Path) -> None:
    from fedai_server.superlink import make_application

    lifespan = make_application(make_home(tmp_path / "home")).state.superlink_lifespan
    lifespan.startup()
    try:
        assert lifespan.superexec_process is None
        assert lifespan.grpc_servers == []
        assert lifespan.bckg_threads == []
    finally:
        lifespan.shutdown()


def test_no_extension_wants_state_from_the_lifespan() -> None:
    from flwr.superlink import extensions

    assert list(extensions.get_lifespan_contexts()) == []
    assert list(extensions.get_middleware()) == []


def test_the_fleet_calls_are_our_ten_and_two_that_stay_hidden() -> None:
    from flwr.superlink.routers.fleet.router import router

    served = {route.path for route in router.routes}
    assert served == {f"/v1/fleet/{call}" for call in (*FLEET_CALLS, "register-node", "unregister-node")}


def test_runtime_calls_are_where_the_loopback_gate_expects_them() -> None:
    from fastapi.routing import iter_route_contexts
    from flwr.supercore.routers.health import router as health
    from flwr.supercore.routers.runtime import create_runtime_router, responses_router

    routers = (create_runtime_router("SuperLink"), responses_router)
    paths = {context.path for router in routers for context in iter_route_contexts(router.routes)}
    assert len(paths) > 10
    assert all(path.startswith(RUNTIME_PREFIX) for path in paths)
    assert {route.path for route in health.routes} == {HEALTH_PATH}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("flwr.supercore.telemetry", "FLWR_TELEMETRY_ENABLED"),
        ("flwr.supercore.update_check", "FLWR_DISABLE_UPDATE_CHECK"),
        ("flwr.common.constant", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"),
        ("flwr.common.constant", "FLWR_INTERNAL_GRPC_CONTROL_API"),
        ("flwr.common.constant", "FLWR_INTERNAL_GRPC_FLEET_API"),
        ("flwr.superlink.config_loader", "FLWR_OIDC_ENABLED"),
        ("flwr.superlink.main", "FLWR_ENABLE_EVENT_LOG"),
        ("flwr.superlink.main", "FLWR_DATABASE"),
        ("flwr.common.constant", "FLWR_HOME"),
        ("flwr.supercore.superexec.run_superexec", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"),
    ],
)
def test_flower_still_reads_the_switches_that_we_set(module: str, name: str) -> None:
    assert name in inspect.getsource(importlib.import_module(module))
    assert name in {*OFF_SWITCHES, *MUST_BE_UNSET, "FLWR_HOME", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"}


PHONE_HOME = """
import socket, sys
def refuse(*arguments, **more):
    print("CALLED", arguments[:1]); raise OSError("no network in this test")
socket.getaddrinfo = refuse
from flwr.supercore.telemetry import EventType, create_event
from flwr.supercore.update_check import warn_if_flwr_update_available
try:
    create_event(EventType.RUN_SUPERLINK_ENTER, None)
except OSError:
    pass
warn_if_flwr_update_available(process_name="flower-superlink")
"""


@pytest.mark.parametrize(("switches", "calls"), [(OFF_SWITCHES, False), ({}, True)])
def test_under_our_switches_and_only_under_them_flower_looks_nothing_up(
    tmp_path: Path, switches: dict[str, str], calls: bool
) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FLWR_HOME": str(tmp_path), **switches}
    told = subprocess.run(
        [sys.executable, "-c", PHONE_HOME],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ("CALLED" in told.stdout) is calls


def test_the_superexec_takes_our_arguments_and_installs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supercore.cli.flower_superexec import _parse_args

    options = _parse_args().parse_args(
        ["--insecure", "--runtime-api-address", "127.0.0.1:1", "--superexec-auth-secret-file", "secret"]
    )
    assert options.runtime_dependency_install is False
    assert options.insecure is True
    assert options.parent_pid is None


def test_the_superexec_would_hide_a_serverapps_output() -> None:
    from flwr.supercore.superexec.plugin import AutoExecPlugin

    assert AutoExecPlugin.suppress_output is True


def test_a_serverapp_is_started_by_name_in_the_session_of_the_superexec() -> None:
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, TaskType
    from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor

    assert TASK_TYPE_TO_COMMAND[TaskType.SERVER_APP] == "flwr-serverapp"
    assert "flwr-serverapp" in entry_points(group="console_scripts").names
    launch = inspect.getsource(SubprocessExecutor.launch)
    assert "start_new_session" not in launch
    assert "env=" not in launch


def test_the_control_client_sends_through_the_one_client_that_we_replace() -> None:
    import httpx
    from flwr.supercore.control import ControlHttpClient

    client = ControlHttpClient("http://127.0.0.1:1")
    assert isinstance(client._client, httpx.Client)
    source = "".join(inspect.getsource(kind) for kind in type(client).__mro__[:2])
    assert source.count("httpx.Client(") == 1
    for call in ("StartRun", "StopRun", "ListRuns", "RegisterNode", "UnregisterNode", "ListNodes"):
        assert callable(getattr(client, call))
    client.close()


def test_the_messages_have_the_fields_that_we_read() -> None:
    from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.proto.run_pb2 import Run

    assert {
        "run_id",
        "status",
        "fab_hash",
        "override_config",
        "pending_at",
        "running_at",
        "finished_at",
    } <= set(Run.DESCRIPTOR.fields_by_name)
    assert {"name", "node_id", "public_key", "status", "last_activated_at"} <= set(
        NodeInfo.DESCRIPTOR.fields_by_name
    )
    assert {"fab", "override_config"} <= set(StartRunRequest.DESCRIPTOR.fields_by_name)
    assert {"public_key", "name"} <= set(RegisterNodeRequest.DESCRIPTOR.fields_by_name)


def test_the_states_of_runs_and_nodes_have_the_words_that_we_compare() -> None:
    from flwr.common.constant import Status, SubStatus
    from flwr.supercore.constant import NodeStatus

    assert (Status.PENDING, Status.STARTING, Status.RUNNING, Status.FINISHED) == (
        "pending", "starting", "running", "finished",
    )  # fmt: skip
    assert (SubStatus.COMPLETED, SubStatus.FAILED, SubStatus.STOPPED) == ("completed", "failed", "stopped")
    assert (NodeStatus.REGISTERED, NodeStatus.ONLINE, NodeStatus.OFFLINE, NodeStatus.UNREGISTERED) == (
        "registered", "online", "offline", "unregistered",
    )  # fmt: skip


def test_uvicorn_leaves_signals_to_a_method_that_we_replace() -> None:
    import uvicorn

    assert "capture_signals" in inspect.getsource(uvicorn.Server.serve)
    assert "sockets" in inspect.signature(uvicorn.Server.serve).parameters
    known = inspect.signature(uvicorn.Config).parameters
    assert {"lifespan", "ws", "http", "proxy_headers", "root_path", "limit_concurrency", "interface"} <= set(
        known
    )


def test_flowers_objects_fit_into_the_smallest_request_that_can_be_allowed() -> None:
    from fedai_server.home import Settings
    from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

    smallest = next(
        rule.ge for rule in Settings.model_fields["max_request_mb"].metadata if hasattr(rule, "ge")
    )
    assert smallest * 1_000_000 > FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 100_000
