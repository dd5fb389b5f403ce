"""A site's home: one folder with everything that the site has, and its settings."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from fedai.errors import ConfigError
from fedai.logs import LogFormat
from fedai.signatures import write_key
from fedai.study import Name
from fedai.yamlfile import Frozen, load
from fedai_site.pacs import Dicomweb, Receiver

PRIVATE = 0o600
CLEAN, DEID = "clean", "deid"  # folders: clean images, and what is known of their originals
AUTHORITY = "ca.pem"  # in the home; site.yaml names it relative to the home


def _is_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("write it as host:port, for example fl.example.org:8443")
    return text


def _is_prom(path: Path) -> Path:
    if path.suffix != ".prom":
        raise ValueError("node_exporter reads files whose names end in .prom")
    return path


class ServerAddress(Frozen):
    """Where the coordinator's server is, and the certificate authority that vouches for it."""

    address: Annotated[str, AfterValidator(_is_address)]
    ca: Path


class SiteSettings(Frozen):
    """site.yaml. `threads`: CPU threads for training. `poll_active_s`, `poll_idle_s`: pauses between
    questions. `witness`: a folder, best on other storage, that gets each signed head of the ledger.
    `keep_sent_days`: how long the bytes that left are kept; 0 keeps their hashes only.
    `consent_required`: use only patients with a consent record that allows the study. `receiver`: what may be
    pushed here. `dicomweb`: the hospital's own services, by name. `memory_gb`: most memory that the agent may
    hold. `stuck_minutes`: the longest that it may work without finishing a batch or the images before it.
    `log_format`: of site.log. `metrics_file`: where the agent writes its numbers, for the hospital's own
    monitoring (see gauges.py).
    """

    name: Name
    server: ServerAddress
    threads: Annotated[int, Field(ge=1, le=512)] | None = None
    poll_active_s: Annotated[float, Field(ge=0.02, le=60)] = 0.1
    poll_idle_s: Annotated[float, Field(ge=0.1, le=3600)] = 2.0
    witness: Path | None = None
    keep_sent_days: Annotated[float, Field(ge=0, le=36_500)] = 0.0
    consent_required: bool = False
    receiver: Receiver | None = None
    dicomweb: dict[Name, Dicomweb] = Field(default_factory=dict)
    memory_gb: Annotated[float, Field(gt=0, le=100_000)] | None = None
    stuck_minutes: Annotated[float, Field(ge=1, le=10_000)] | None = None
    log_format: LogFormat = "text"
    metrics_file: Annotated[Path, AfterValidator(_is_prom)] | None = None


@dataclass(frozen=True)
class SiteHome:
    """Paths of a site's home. Only `keys` and `clean` hold what must never be copied out of the hospital."""

    folder: Path
    settings: SiteSettings

    @property
    def catalogue(self) -> Path:
        return self.folder / "catalogue.sqlite"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    @property
    def ledger_heads(self) -> Path:
        return self.folder / "ledger.heads.jsonl"

    @property
    def ledger_key(self) -> Path:
        return self.folder / "keys" / "ledger.key"

    @property
    def sent(self) -> Path:
        return self.folder / "sent"

    @property
    def rules(self) -> Path:
        return self.folder / "policy.yaml"

    @property
    def engineer_key(self) -> Path:
        return self.folder / "keys" / "engineer.key"

    @property
    def approvals(self) -> Path:
        return self.folder / "approvals"

    @property
    def log(self) -> Path:
        return self.folder / "site.log"

    @property
    def status(self) -> Path:
        return self.folder / "status.json"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def receipts(self) -> Path:
        return self.folder / "receipts"

    @property
    def private_key(self) -> Path:
        return self.folder / "keys" / "agent.key"

    @property
    def public_key(self) -> Path:
        return self.folder / "keys" / "agent.pub"

    @property
    def pseudonym_key(self) -> Path:
        return self.folder / "keys" / "pseudonym.key"


def open_home(folder: Path) -> SiteHome:
    """Read an existing home. Raises ConfigError where it isn't one or its settings are wrong."""
    if not (folder / "site.yaml").is_file():
        raise ConfigError(f"{folder} is not a site's home", hint="make one with `fedai site init`")
    settings = load(folder / "site.yaml", SiteSettings)
    return SiteHome(folder, _with_authority(settings, folder / settings.server.ca))


def create_home(folder: Path, settings: SiteSettings, pseudonym_key: Path | None = None) -> SiteHome:
    """Make a new home with fresh keys: an EC P-384 pair for the agent, 256 random bits for pseudonyms, an
    Ed25519 pair for the ledger's heads. `pseudonym_key`: a key file to take a copy of instead, so that
    patients keep the pseudonyms that `fedai site deid run` gave them.

    The secrets are readable by the owner only and never leave this folder. Raises ConfigError where a home
    or keys exist, the certificate authority's file is missing or none, or the key file is no such key.
    """
    import yaml

    from fedai_site.deidentify.pseudonyms import load_secret

    if (folder / "site.yaml").exists() or (folder / "keys").exists():
        raise ConfigError(
            f"{folder} is a site's home already, or was begun as one",
            hint="choose another folder; nothing was changed",
        )
    authority = _read_authority(settings.server.ca)
    secret = load_secret(pseudonym_key) if pseudonym_key else secrets.token_bytes(32)
    for part in ("keys", "approvals", "clean", "cache", "runs"):
        (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    (folder / AUTHORITY).write_bytes(authority)
    home = SiteHome(folder, _with_authority(settings, folder / AUTHORITY))
    _write_keys(home, secret)
    kept = _with_authority(settings, Path(AUTHORITY)).model_dump(mode="json", exclude_none=True)
    (folder / "site.yaml").write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return home


def fingerprints(home: SiteHome) -> dict[str, str]:
    """`key_fingerprint` and `ca_fingerprint`, to compare by telephone; empty where a file isn't readable."""
    from fedai.fingerprints import certificate_fingerprint, key_fingerprint

    def of(path: Path, fingerprint: Callable[[bytes], str]) -> str:
        try:
            return fingerprint(path.read_bytes())
        except (OSError, ConfigError):
            return ""

    return {
        "key_fingerprint": of(home.public_key, key_fingerprint),
        "ca_fingerprint": of(home.settings.server.ca, certificate_fingerprint),
    }


def _with_authority(settings: SiteSettings, ca: Path) -> SiteSettings:
    return settings.model_copy(update={"server": ServerAddress(address=settings.server.address, ca=ca)})


def _read_authority(path: Path) -> bytes:
    if not path.is_file():
        raise ConfigError(f"no certificate at {path}", hint="ask the coordinator for ca.pem; --ca names it")
    from fedai.fingerprints import one_certificate

    try:
        return one_certificate(path.read_bytes())
    except ConfigError as error:
        raise ConfigError(
            f"{path} is not a certificate: {error.message}",
            hint="ask the coordinator for ca.pem; it holds one certificate and no key",
        ) from None


def _write_keys(home: SiteHome, pseudonym_key: bytes) -> None:
    private, public = _agent_keys()
    write_private(home.private_key, private)
    home.public_key.write_bytes(public)
    write_private(home.pseudonym_key, pseudonym_key)
    write_key(home.ledger_key)


def _agent_keys() -> tuple[bytes, bytes]:
    """A fresh P-384 pair as PEM: private, public."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public


def renew_key(home: SiteHome) -> Path:
    """Make a new pair for the agent, whose old one was retired or may be known to others.

    The old private key is kept beside it under its fingerprint; its path is given back. The pseudonyms' key
    stays. Raises ConfigError where the home has no pair.
    """
    from fedai.fingerprints import key_fingerprint

    if not (home.private_key.is_file() and home.public_key.is_file()):
        raise ConfigError("the agent's keys are missing", where=str(home.private_key.parent),
                          hint="restore them from the backup, or begin a new home")  # fmt: skip
    print_ = key_fingerprint(home.public_key.read_bytes()).replace(":", "")[:12]
    old = home.private_key.with_name(f"agent.key.{print_}")
    new = home.private_key.with_name("agent.key.new")
    new.unlink(missing_ok=True)
    private, public = _agent_keys()
    write_private(new, private)
    if not old.exists():
        os.link(home.private_key, old)
    new.replace(home.private_key)
    home.public_key.write_bytes(public)
    (home.folder / "node").unlink(missing_ok=True)
    return old


def write_private(path: Path, content: bytes) -> None:
    """Create a file that only its owner may read; refuses to overwrite."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
