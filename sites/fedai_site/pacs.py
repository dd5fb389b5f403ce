"""The hospital's own archive, as `site.yaml` names it: who may push here, and where DICOMweb is asked."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AnyUrl, Field, model_validator

from fedai.yamlfile import Frozen

LOOPBACK = frozenset({"localhost"})


def _is_title(text: str) -> str:
    if not re.fullmatch(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?", text):
        raise ValueError("an AE title has 1 to 16 characters of ASCII, no backslash, no spaces at its ends")
    return text


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


def _is_bound_to(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not int(port) < 65536:
        raise ValueError("write it as address:port, for example 127.0.0.1:11112")
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        raise ValueError("give one of this machine's addresses in numbers, not a name") from None
    return text


def _is_safe_url(text: str) -> str:
    parts = AnyUrl(text)
    if parts.scheme not in ("http", "https") or not parts.host or parts.query or parts.fragment:
        raise ValueError("write it as https://host:port/path")
    if parts.username or parts.password:
        raise ValueError("no password in here: set FEDAI_DICOMWEB_AUTHORIZATION in the environment")
    if parts.scheme != "https" and not is_loopback(parts.host.strip("[]")):
        raise ValueError("https is needed for any address but this machine's own")
    return text.rstrip("/")


Title = Annotated[str, AfterValidator(_is_title)]


class Certificates(Frozen):
    """TLS with certificates on both sides: our own, its key, and the authority of the other side's. Paths are
    relative to the home.
    """

    certificate: Path
    key: Path
    ca: Path


class Receiver(Frozen):
    """What `fedai site receive` listens to: its own AE title, the address to bind to, and the AE titles of
    those who may push. An AE title proves nothing by itself; a certificate does (`tls`).
    """

    title: Title = "FEDAI"
    address: Annotated[str, AfterValidator(_is_bound_to)] = "127.0.0.1:11112"
    callers: Annotated[tuple[Title, ...], Field(min_length=1, max_length=100)]
    tls: Certificates | None = None


class Dicomweb(Frozen):
    """A DICOMweb service of the hospital. `ca`: the authority of its certificate, where the system's don't
    know it. `certificate`, `key`: our own, where it asks for one.
    """

    url: Annotated[str, AfterValidator(_is_safe_url)]
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _has_both(self) -> Dicomweb:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self
