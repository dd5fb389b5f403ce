"""What the coordinator may ask of the SuperLink: a thin, typed client of Flower's Control calls.

Every call raises FederationError with a next step: nobody listening, a token that doesn't fit, a ledger that
can't be written, or Flower's own refusal (its code and public text); RefusedByPolicy where the token's role
doesn't allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedai.errors import FedaiError, FederationError, RefusedByPolicy
from fedai_server.gate import NOT_WRITTEN, NOT_YOUR_ROLE, TOKEN_HEADER
from fedai_server.home import ServerHome
from fedai_server.roles import read_token, token_file

TIMEOUT_S = 30.0
MOST_RUNS = 10_000  # Flower gives the latest 20 where nothing is said


@dataclass(frozen=True)
class SiteNode:
    """A site as the SuperLink knows it; `status`: registered (never seen), online, offline, unregistered."""

    name: str
    node_id: int
    public_key: bytes
    status: str
    last_activated_at: str


@dataclass(frozen=True)
class FlowerRun:
    """A run as the SuperLink knows it: `status` pending, starting, running or finished; `outcome` completed,
    failed or stopped once finished. Times are ISO 8601, empty until reached."""

    run_id: int
    status: str
    outcome: str
    details: str
    bundle_sha256: str
    study_text: str
    pending_at: str
    running_at: str
    finished_at: str


class Control:
    """Open with `with Control(home) as control:`. `token`: its file; default: see roles.token_file."""

    def __init__(self, home: ServerHome, *, token: Path | None = None, timeout_s: float = TIMEOUT_S) -> None:
        import httpx
        from flwr.supercore.control import ControlHttpClient

        home.require_whole()
        self._home = home
        self._client = ControlHttpClient(f"http://{home.loopback_address}")
        self._client.close()
        # No proxy from the environment, no redirects, no connection kept over a SuperLink's restart;
        # the token goes with every call.
        self._client._client = httpx.Client(
            timeout=timeout_s, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0),
            headers={TOKEN_HEADER: read_token(token or token_file(home))},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def start_run(self, bundle: bytes, study_text: str) -> int:
        """Start a run of `bundle` with the study's text as its configuration; gives the run's id."""
        from flwr.common.serde import user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.proto.fab_pb2 import Fab

        request = StartRunRequest(
            fab=Fab(content=bundle), override_config=user_config_to_proto({"study": study_text})
        )
        response = self._call(self._client.StartRun, request)
        if not response.HasField("run_id"):
            raise FederationError(
                "the SuperLink didn't start the run", hint=f"see {self._home.logs / 'superlink.log'}"
            )
        return int(response.run_id)

    def stop_run(self, run_id: int) -> bool:
        """Stop a run; False if it had ended before. Raises FederationError where there is no such run."""
        from flwr.proto.control_pb2 import StopRunRequest

        if self._is_finished(run_id):
            return False
        try:
            return bool(self._call(self._client.StopRun, StopRunRequest(run_id=run_id)).success)
        except FederationError:
            if self._is_finished(run_id):  # its process was quicker
                return False
            raise

    def _is_finished(self, run_id: int) -> bool:
        from flwr.proto.control_pb2 import ListRunsRequest

        (run,) = self._call(self._client.ListRuns, ListRunsRequest(run_id=run_id)).run_dict.values()
        return bool(run.status.status == "finished")

    def list_runs(self, *, limit: int = MOST_RUNS) -> tuple[FlowerRun, ...]:
        """The latest `limit` runs, the oldest first."""
        from flwr.proto.control_pb2 import ListRunsRequest

        runs = self._call(self._client.ListRuns, ListRunsRequest(limit=limit)).run_dict.values()
        return tuple(_flower_run(run) for run in sorted(runs, key=lambda run: run.pending_at))

    def register_site(self, name: str, public_key: bytes) -> int:
        """Admit a PEM public key under `name`; gives its node id. Idempotent for the same name and key.

        Raises FederationError where the name has another key, or the key another name, or was retired.
        """
        from flwr.proto.control_pb2 import RegisterNodeRequest

        for site in self.list_sites(retired=True):
            if site.public_key == public_key:
                return _same_site(site, name)
            if site.name == name and site.status != "unregistered":
                raise FederationError(
                    f"{name} is admitted with another key", hint=f"first: fedai server retire HOME {name}"
                )
        request = RegisterNodeRequest(public_key=public_key, name=name)
        return int(self._call(self._client.RegisterNode, request).node_id)

    def unregister_site(self, name: str) -> bool:
        """Shut a site out for good (a retired key can't come back); False if there was none of that name."""
        from flwr.proto.control_pb2 import UnregisterNodeRequest

        found = [site for site in self.list_sites() if site.name == name]
        for site in found:
            self._call(self._client.UnregisterNode, UnregisterNodeRequest(node_id=site.node_id))
        return bool(found)

    def list_sites(self, *, retired: bool = False) -> tuple[SiteNode, ...]:
        """The sites admitted, by name; with `retired` also those shut out."""
        from flwr.proto.control_pb2 import ListNodesRequest

        nodes = self._call(self._client.ListNodes, ListNodesRequest()).nodes_info
        sites = [_site_node(node) for node in nodes if retired or node.status != "unregistered"]
        return tuple(sorted(sites, key=lambda site: (site.name, site.node_id)))

    def _call(self, method: Callable[[Any], Any], request: object) -> Any:
        with _translated_errors(self._home):
            return method(request)


def is_cut_off(error: Exception) -> bool:
    """Whether one of Flower's clients couldn't reach the SuperLink, or was turned away by it, be it in the
    middle of a message, of which a SuperLink that was started anew knows nothing.
    """
    import httpx
    from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

    return isinstance(error, httpx.HTTPError | ObjectPushError)


@contextmanager
def _translated_errors(home: ServerHome) -> Iterator[None]:
    import httpx

    try:
        yield
    except httpx.HTTPStatusError as error:
        raise _refusal(error.response.status_code, error.response.text, home) from None
    except httpx.TimeoutException:
        raise FederationError(
            f"the server at {home.loopback_address} doesn't answer", hint=f"see {home.logs / 'superlink.log'}"
        ) from None
    except httpx.TransportError:
        raise FederationError(
            f"no server answers at {home.loopback_address}",
            hint=f"start it: fedai server start {home.folder}",
        ) from None


def _refusal(status: int, text: str, home: ServerHome) -> FedaiError:
    from flwr.supercore.error import ApiErrorCode, FlowerError

    if text == NOT_YOUR_ROLE.decode():
        return RefusedByPolicy(
            "the token was revoked, or its role doesn't allow this call",
            hint="ask the coordinator for another",
        )
    if text == NOT_WRITTEN.decode():
        return FederationError(
            "the call couldn't be written to the server's ledger; nothing was done",
            hint=f"is the disk full? then see `fedai server ledger verify {home.folder}`",
        )
    told = FlowerError.from_json(text)
    if told and told.code == ApiErrorCode.RUN_ID_NOT_FOUND:
        return FederationError("the SuperLink knows no such run", hint=f"fedai run list {home.folder}")
    if not told and status in (403, 404):
        return FederationError(
            f"what listens at {home.loopback_address} is not this home's server ({status})",
            hint="does another server hold the port (loopback_port in server.yaml)? is the token nobody's?",
        )
    reason = f"code {told.code}: {told.message}" if told else f"status {status}"
    return FederationError(
        f"the SuperLink refused the call ({reason})", hint=f"see {home.logs / 'superlink.log'}"
    )


def _same_site(site: SiteNode, name: str) -> int:
    if site.status == "unregistered":
        raise FederationError(
            f"this key was retired as {site.name}",
            hint="have the site make a new key: fedai site renew-key HOME",
        )
    if site.name != name:
        raise FederationError(f"this key is admitted as {site.name}", hint="one key is one site")
    return site.node_id


def _site_node(node: Any) -> SiteNode:
    return SiteNode(node.name, node.node_id, node.public_key, node.status, node.last_activated_at)


def _flower_run(run: Any) -> FlowerRun:
    study = run.override_config["study"].string if "study" in run.override_config else ""
    return FlowerRun(
        run_id=run.run_id,
        status=run.status.status, outcome=run.status.sub_status, details=run.status.details,
        bundle_sha256=run.fab_hash, study_text=study, pending_at=run.pending_at, running_at=run.running_at,
        finished_at=run.finished_at,
    )  # fmt: skip
