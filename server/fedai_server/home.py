"""The server's home: one folder with everything it needs to run, and the settings in its server.yaml.

    server.yaml            settings, written once by `fedai server init`, edited by hand
    pki/                   ca.pem ca.key server.pem server.key; no ca.key under the consortium's authority
    secrets/               superexec.secret (may take tasks), control.token (may start and stop runs),
                           tokens/ (names, roles and digests of further tokens), ledger.key (signs the ledger)
    ledger.jsonl           who asked what, line by line; ledger.heads.jsonl its signed heads
    sites/SITE.pub         the public keys admitted, by name; sites/retired/ those no longer
    kit/, kits/SITE/       what a site needs from us: ca.pem and kit.yaml
    superlink.sqlite       Flower's state
    runs.sqlite            the runs, unless runs_database names another place
    logs/                  superlink.log superexec.log
    flwr/                  Flower's own home
    state/                 ids of the running processes

The folder is 0700 and every secret in it 0600.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fedai.errors import ConfigError
from fedai.logs import LogFormat
from fedai.signatures import write_key
from fedai.study import NAME_PATTERN
from fedai.yamlfile import Frozen, load

if TYPE_CHECKING:
    from fedai_server.certificates import Given

DEFAULT_PUBLIC_PORT = 8443
DEFAULT_LOOPBACK_PORT = 8444
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
FOLDERS = ("pki", "secrets", "sites", "kits", "logs", "flwr", "state")

Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(Frozen):
    """server.yaml."""

    public_host: str
    public_port: Port = DEFAULT_PUBLIC_PORT
    listen_host: str
    loopback_port: Port = DEFAULT_LOOPBACK_PORT
    metrics_port: Port | None = None  # /metrics and /healthz, on loopback alone; none: nothing listens
    names: tuple[str, ...] = ()
    authority: Literal["own", "consortium"] = "own"  # whose certificate sites check ours against
    max_request_mb: Annotated[int, Field(ge=6, le=1024)] = 16  # Flower sends objects in pieces of 5 MB
    max_connections: Annotated[int, Field(ge=8, le=65536)] = 256
    log_format: LogFormat = "text"
    runs_database: str = ""  # postgresql+psycopg://HOST/DATABASE; default: runs.sqlite in the home

    @field_validator("listen_host")
    @classmethod
    def _an_address(cls, value: str) -> str:
        ipaddress.ip_address(value)
        return value

    @field_validator("public_host", "names")
    @classmethod
    def _hosts(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for host in (value,) if isinstance(value, str) else value:
            if not is_host(host):
                raise ValueError(f"{host!r} is neither a DNS name nor an IP address")
        return value

    @field_validator("runs_database")
    @classmethod
    def _a_databases_url(cls, value: str) -> str:
        from fedai_server.databases import check_url

        if value:
            check_url(value)
        return value

    @model_validator(mode="after")
    def _ports_differ(self) -> Settings:
        if self.public_port == self.loopback_port:
            raise ValueError("public_port and loopback_port must differ")
        if self.metrics_port in (self.public_port, self.loopback_port):
            raise ValueError("metrics_port must differ from the other ports")
        return self


@dataclass(frozen=True)
class ServerHome:
    """Paths and settings of one server."""

    folder: Path
    settings: Settings

    @property
    def address(self) -> str:
        """What sites connect to, HOST:PORT."""
        return join_host_port(self.settings.public_host, self.settings.public_port)

    @property
    def loopback_address(self) -> str:
        """Where Control and Runtime listen, for this machine alone."""
        return f"127.0.0.1:{self.settings.loopback_port}"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def authority(self) -> Path:
        return self.pki / "ca.pem"

    @property
    def superexec_secret(self) -> Path:
        return self.folder / "secrets" / "superexec.secret"

    @property
    def control_token(self) -> Path:
        return self.folder / "secrets" / "control.token"

    @property
    def tokens(self) -> Path:
        return self.folder / "secrets" / "tokens"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    @property
    def ledger_heads(self) -> Path:
        return self.folder / "ledger.heads.jsonl"

    @property
    def ledger_key(self) -> Path:
        return self.folder / "secrets" / "ledger.key"

    @property
    def database(self) -> Path:
        return self.folder / "superlink.sqlite"

    @property
    def runs_database(self) -> Path | str:
        return self.settings.runs_database or self.folder / "runs.sqlite"

    @property
    def sites(self) -> Path:
        return self.folder / "sites"

    @property
    def kits(self) -> Path:
        return self.folder / "kits"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def require_whole(self) -> None:
        """Raise ConfigError naming every file of keys and secrets that is missing."""
        needed = [self.pki / name for name in ("ca.pem", "server.pem", "server.key")]
        needed += [self.superexec_secret, self.control_token]
        missing = [str(path.relative_to(self.folder)) for path in needed if not path.is_file()]
        if missing:
            raise ConfigError(
                f"{self.folder} lacks {', '.join(missing)}",
                hint="restore it from your backup; a server.pem is remade by `fedai server renew`",
            )

    def site_key(self, site: str) -> Path:
        """Our copy of a site's public key. Raises ConfigError for a name that is none."""
        return self.sites / f"{check_site_name(site)}.pub"


HOME_HINT = "`fedai run` takes it from --home or FEDAI_SERVER_HOME; to make one: fedai server init FOLDER"


def open_home(folder: Path | str) -> ServerHome:
    """Read the home in `folder`. Raises ConfigError naming all problems of its server.yaml."""
    folder = Path(folder).expanduser().absolute()
    if not (folder / "server.yaml").is_file():
        raise ConfigError(f"{folder} is not a server's home", hint=HOME_HINT)
    return ServerHome(folder, load(folder / "server.yaml", Settings))


def init_home(
    folder: Path | str,
    *,
    public_host: str = "127.0.0.1",
    public_port: int = DEFAULT_PUBLIC_PORT,
    loopback_port: int | None = None,
    names: Sequence[str] = (),
    given: Given | None = None,
) -> ServerHome:
    """Make a server's home: settings, authority, certificate, secrets. Overwrites nothing.

    `public_host` and `public_port` are what sites connect to; `names` are further DNS names or addresses that
    the certificate is valid for. `given`: a certificate of the consortium's authority, instead of an own one.
    Raises ConfigError.
    """
    from fedai_server import certificates, pki

    folder = Path(folder).expanduser().absolute()
    settings = _settings(public_host, public_port, loopback_port, tuple(names), given is not None)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", hint="give a new folder; nothing is overwritten")
    if given is not None:
        certificates.check(given, (public_host, *names))
    _make_folders(folder)
    home = ServerHome(folder, settings)
    if given is not None:
        certificates.take(home.pki, given, (public_host, *names))
    else:
        pki.make_authority(home.pki)
        pki.make_server_certificate(home.pki, (public_host, *names))
    write_file(home.superexec_secret, secrets.token_bytes(48), mode=0o600)
    write_file(home.control_token, secrets.token_urlsafe(48).encode(), mode=0o600)
    write_key(home.ledger_key)
    write_file(folder / "server.yaml", _settings_text(settings).encode(), mode=0o600)  # last: it is whole
    return home


def check_site_name(site: str) -> str:
    """Give `site` back, or raise ConfigError: a study's sites have such names, and it becomes a file name."""
    if not re.fullmatch(NAME_PATTERN, site):
        raise ConfigError(
            f"{site!r} can't be a site's name", hint="lower-case letters, digits and -, a letter first"
        )
    return site


def is_host(text: str) -> bool:
    """Is this an IP address or a DNS name?"""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return HOST.fullmatch(text) is not None and ".." not in text
    return True


def join_host_port(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(text: str, default_port: int = DEFAULT_PUBLIC_PORT) -> tuple[str, int]:
    """HOST, HOST:PORT or [IPV6]:PORT in its parts. Raises ConfigError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]/]+))(?::([0-9]{1,5}))?", text)
    host = (match[1] or match[2]) if match else ""
    port = int(match[3]) if match and match[3] else default_port
    if not is_host(host) or not 1 <= port <= 65535:
        raise ConfigError(f"--public: {text!r} is not HOST:PORT", hint="for example fed.example.org:8443")
    return host, port


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Write whole or not at all (temporary file, then rename), with `mode` from its first byte on. A system's
    error names `path`.
    """
    try:
        _write_and_rename(path, content, mode)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _write_and_rename(path: Path, content: bytes, mode: int) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _settings(
    public_host: str, public_port: int, loopback_port: int | None, names: tuple[str, ...], consortium: bool
) -> Settings:
    from pydantic import ValidationError

    if loopback_port is None:
        loopback_port = DEFAULT_LOOPBACK_PORT if public_port != DEFAULT_LOOPBACK_PORT else DEFAULT_PUBLIC_PORT
    try:
        return Settings(
            public_host=public_host, public_port=public_port, listen_host=_listen_host(public_host),
            loopback_port=loopback_port, names=names, authority="consortium" if consortium else "own",
        )  # fmt: skip
    except ValidationError as error:
        problems = "\n".join(f"{_option(e['loc'])}{_plain(e['msg'])}" for e in error.errors())
        raise ConfigError(problems, hint="see fedai server init --help") from None


def _option(place: tuple[int | str, ...]) -> str:
    """The option of `fedai server init` that a setting comes from."""
    options = {"names": "--name", "loopback_port": "--loopback-port"}
    return f"{options.get(str(place[0]), '--public')}: " if place else ""


def _plain(message: str) -> str:
    """pydantic's message as we say it."""
    for name in ("public", "loopback"):
        message = message.replace(f"{name}_port", f"the {name} port")
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _listen_host(public_host: str) -> str:
    """Listen on loopback alone where that is the public address, else on every interface."""
    try:
        address = ipaddress.ip_address(public_host)
    except ValueError:
        return "127.0.0.1" if public_host == "localhost" else "0.0.0.0"  # noqa: S104  what a server is for
    if address.is_loopback:
        return public_host
    return "::" if address.version == 6 else "0.0.0.0"  # noqa: S104


def _make_folders(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name in FOLDERS:
            (folder / name).mkdir(mode=0o700)
    except OSError as error:
        raise ConfigError(f"can't make {error.filename}: {error.strerror}", hint="check the path") from None


def _settings_text(settings: Settings) -> str:
    names = "".join(f"\n  - {name}" for name in settings.names) or " []"
    return f"""\
# Settings of a fedai server. Restart it after a change; after a change of names also renew its certificate.
authority: "{settings.authority}"   # own: ca.key signs the certificate; consortium: it comes from elsewhere
public_host: "{settings.public_host}"   # what sites connect to
public_port: {settings.public_port}
names:{names}
listen_host: "{settings.listen_host}"   # the interface we listen on for sites
loopback_port: {settings.loopback_port}   # Control and Runtime, this machine only
# metrics_port: 8445   # /metrics and /healthz, this machine only
max_request_mb: {settings.max_request_mb}   # larger requests from sites are refused
max_connections: {settings.max_connections}
"""
