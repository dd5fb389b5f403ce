"""Flower's SuperLink in a process of ours: one application, one lifespan, two listeners.

`python -m fedai_server.superlink --home HOME` serves
- sites on the public port: TLS 1.2 or newer, the ten Fleet calls alone (see gate.py);
- this machine on the loopback port: Control and Runtime, plain HTTP.

In process isolation: the ServerApp runs in another process (superexec.py) and outlives a restart of this
one. The parent may bind both sockets and hand them down (`--sockets PUBLIC,LOOPBACK`, file descriptors): then
no port can be taken in between, and sites that call during a restart wait instead of being turned away.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedai.errors import ConfigError, FedaiError
from fedai.logs import LogFormat, write_json
from fedai_server.certificates import follow
from fedai_server.connections import Connections
from fedai_server.gate import LoopbackGate, PublicGate, Recorder
from fedai_server.home import ServerHome, open_home
from fedai_server.ledger import Desk, ledger_of
from fedai_server.middlewares import narrow
from fedai_server.orphans import when_parent_is_gone

if TYPE_CHECKING:
    import uvicorn

MEGABYTE = 1_000_000
BACKLOG = 512
LONGEST_HEAD = 16_384
KEEP_ALIVE_S = 75  # an agent keeps its connection: a TLS handshake costs more than a call
GRACE_S = 3
OFF_SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
MUST_BE_UNSET = (
    "FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API", "FLWR_OIDC_ENABLED",
    "FLWR_ENABLE_EVENT_LOG", "FLWR_DATABASE",
)  # fmt: skip


def flower_environment(home: ServerHome) -> dict[str, str]:
    """What Flower's processes inherit: a home of their own, nothing that phones home, no proxy inside."""
    environment = {name: value for name, value in os.environ.items() if name not in MUST_BE_UNSET}
    local = ",".join(filter(None, (os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost")))
    environment.update(OFF_SWITCHES, FLWR_HOME=str(home.folder / "flwr"), NO_PROXY=local, no_proxy=local)
    return environment


def make_application(home: ServerHome) -> Any:
    """Flower's FastAPI application for this home: site keys required, process isolation, a database file.

    Raises FederationError if this Flower is not the one that we know (its seams are held by contract tests).
    """
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app

    config = SuperLinkLifespanConfig(
        control_address=home.loopback_address, health_server_address=None,
        host="127.0.0.1", port=home.settings.loopback_port,
        insecure=True, certificates=None, ssl_ca_certfile=None, ssl_certfile=None, ssl_keyfile=None,
        superexec_auth_secret=home.superexec_secret.read_bytes(),
        authn_plugin=NoOpControlAuthnPlugin(), event_log_plugin=None, fleet_event_log_plugin=None,
        enable_event_log=False, artifact_provider=None, enable_supernode_auth=True,
        fleet_api_type="grpc-rere", fleet_api_address=None, simulation=False,
        database=str(home.database), isolation="process", runtime_dependency_install=False,
    )  # fmt: skip
    application = create_app(config, SuperLinkLifespan)
    narrow(application)
    home.database.chmod(0o600)
    return application


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises ConfigError naming the port if it is taken or not ours to take."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"port {port} on {host} can't be used: {error.strerror}",
            hint="stop what holds it, or set another port in server.yaml",
        ) from None
    return listener


def bind_both(home: ServerHome) -> tuple[socket.socket, socket.socket]:
    """The public and the loopback socket, or neither. Raises ConfigError naming the port."""
    public = bind(home.settings.listen_host, home.settings.public_port)
    try:
        return public, bind("127.0.0.1", home.settings.loopback_port)
    except ConfigError:
        public.close()
        raise


async def serve(home: ServerHome, sockets: tuple[socket.socket, socket.socket], record: Path | None) -> None:
    """Serve both listeners until SIGTERM or SIGINT."""
    from fedai_server.listener import Listener, PublicListener

    application = make_application(home)
    connections = Connections(home.settings.max_connections, asyncio.get_running_loop)
    public = PublicListener(_public_configuration(home, application, connections, record), connections)
    loopback = Listener(_loopback_configuration(home, application))

    def leave() -> None:
        public.should_exit = loopback.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    assert public.config.ssl is not None
    following = asyncio.create_task(follow(public.config.ssl, home.pki))
    async with application.router.lifespan_context(application):
        await asyncio.gather(public.serve([sockets[0]]), loopback.serve([sockets[1]]))
    following.cancel()


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the SuperLink's process."""
    options = _parser().parse_args(arguments)
    try:
        home = open_home(options.home)
        sockets = _inherited(options.sockets) if options.sockets else bind_both(home)
        os.environ.update(flower_environment(home))
        write_json(home.settings.log_format)
        for name in MUST_BE_UNSET:
            os.environ.pop(name, None)
        if options.parent:
            when_parent_is_gone(options.parent, leave_orphaned)
        asyncio.run(serve(home, sockets, options.record))
    except FedaiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def leave_orphaned() -> None:
    """End this process: in order, or else by force."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S + 1)
    os._exit(1)


def _public_configuration(
    home: ServerHome, application: Any, connections: Connections, record: Path | None
) -> uvicorn.Config:
    import uvicorn

    from fedai_server.callers import Callers

    maximum = home.settings.max_request_mb * MEGABYTE
    callers = Callers(application.state.linkstate_factory.state())
    app: Any = PublicGate(application, callers, maximum_bytes=maximum, know=connections.know)
    if record is not None:
        app = Recorder(app, record, maximum_bytes=maximum)
    configuration = uvicorn.Config(
        app, ssl_certfile=home.pki / "server.pem", ssl_keyfile=home.pki / "server.key",
        h11_max_incomplete_event_size=LONGEST_HEAD, **_common(home),
    )  # fmt: skip
    configuration.load()
    if configuration.ssl is None:
        raise ConfigError("the public listener has no TLS", hint=f"check {home.pki}")
    configuration.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return configuration


def _loopback_configuration(home: ServerHome, application: Any) -> uvicorn.Config:
    import uvicorn

    desk, maximum = Desk(home, ledger_of(home)), home.settings.max_request_mb * MEGABYTE
    return uvicorn.Config(LoopbackGate(application, desk=desk, maximum_bytes=maximum), **_common(home))


def _common(home: ServerHome) -> dict[str, Any]:
    """Both listeners: the strict parser, no trust in forwarding headers, no WebSockets, our own lifespan."""
    return {
        "http": "h11", "ws": "none", "lifespan": "off", "interface": "asgi3", "loop": "asyncio",
        "proxy_headers": False, "server_header": False, "root_path": "",
        "log_config": _log_configuration(home.settings.log_format),
        "access_log": True, "timeout_keep_alive": KEEP_ALIVE_S, "timeout_graceful_shutdown": GRACE_S,
        "backlog": BACKLOG,
    }  # fmt: skip


def _log_configuration(log_format: LogFormat) -> dict[str, Any]:
    from flwr.supercore.http_logging import get_uvicorn_log_config

    configuration: dict[str, Any] = get_uvicorn_log_config(logging.INFO)
    if log_format == "json":
        configuration["formatters"]["http"] = {"()": "fedai.logs.JsonLines"}
    return configuration


def _inherited(numbers: str) -> tuple[socket.socket, socket.socket]:
    public, loopback = (socket.socket(fileno=int(number)) for number in numbers.split(","))
    return public, loopback


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fedai_server.superlink", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--record", type=Path, help="append what the public listener receives here")
    parser.add_argument("--sockets", help="two listening file descriptors, PUBLIC,LOOPBACK")
    parser.add_argument("--parent", type=int, help="end when this is no longer our parent's id")
    return parser


if __name__ == "__main__":
    sys.exit(main())
