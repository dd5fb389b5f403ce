"""`fedai site receive`: the one socket of a site that listens. An archive pushes objects here (C-STORE).

A process of its own. It opens no connection, no key of the home and no data set: what comes is written to the
inbox as it came, and success is answered when it is on the disk, so that nothing is lost that was answered
for. Only listed AE titles are heard, with certificates of the named authority where TLS is set. What it says
of its work are numbers; peers are named by the AE titles of `site.yaml`.
"""

from __future__ import annotations

import fcntl
import logging
import resource
import ssl
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedai.errors import ConfigError
from fedai_site import inbox
from fedai_site.pacs import Certificates, Receiver

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700  # PS3.4 B.2.3
MOST_ASSOCIATIONS = 10
TIMEOUT_S = 60.0
MEMORY_BYTES = 4 << 30  # objects go to the disk in pieces; a peer's claims of length end here
Tell = Callable[[str], None]


@dataclass
class _Store:
    """What handles the events of all associations; each has a thread and a number of its own."""

    folder: Path
    tell: Tell
    counts: dict[Any, Counter[str]] = field(default_factory=dict)
    numbers: dict[Any, int] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)
    last: int = 0

    def store(self, event: Any) -> int:
        """Keep one object; the archive keeps it too and tries again where the answer isn't success."""
        status = self._keep(event)
        with self.guard:
            self.counts.setdefault(event.assoc, Counter())["refused" if status else "received"] += 1
        return status

    def _keep(self, event: Any) -> int:
        try:
            inbox.keep(self.folder, Path(event.dataset_path))
        except (OSError, AttributeError, TypeError):
            return OUT_OF_RESOURCES
        return SUCCESS

    def begin(self, event: Any) -> None:
        """An association was accepted."""
        with self.guard:
            self.last += 1
            self.numbers[event.assoc] = self.last

    def end(self, event: Any) -> None:
        """An association is over, one way or the other."""
        with self.guard:
            number, counts = self.numbers.pop(event.assoc, 0), self.counts.pop(event.assoc, Counter())
        if number:
            caller = str(event.assoc.requestor.ae_title).strip()
            self.tell(
                f"association {number} with {caller}: {counts['received']} received, "
                f"{counts['refused']} refused"
            )


def receive(home: Path, settings: Receiver, stop: threading.Event, tell: Tell) -> None:
    """Listen until `stop` is set.

    Raises ConfigError where pynetdicom isn't installed, another receiver is at work, a certificate can't be
    used or the address can't be bound.
    """
    try:
        from pynetdicom import evt
    except ImportError:
        raise ConfigError("pynetdicom is not installed", hint="pip install 'fedai-radiology[pacs]'") from None
    folder = inbox.open_inbox(home)
    context = _tls(home, settings.tls) if settings.tls else None
    with (folder / ".receiver.lock").open("w") as lock:
        _be_alone(lock, folder)
        _be_quiet(folder, tell)
        store = _Store(folder, tell)
        handlers = [
            (evt.EVT_C_STORE, store.store), (evt.EVT_ACCEPTED, store.begin), (evt.EVT_RELEASED, store.end),
            (evt.EVT_ABORTED, store.end), (evt.EVT_CONN_CLOSE, store.end),
        ]  # fmt: skip
        host, _, port = settings.address.rpartition(":")
        try:
            entity = _entity(settings)
            server = entity.start_server(
                (host.strip("[]"), int(port)), block=False, evt_handlers=handlers, ssl_context=context
            )
        except OSError as error:
            raise ConfigError(f"can't listen there: {error.strerror}", where=settings.address,
                              hint="choose another `receiver: address:` in site.yaml") from None  # fmt: skip
        port = server.server_address[1]
        tell(f"listening on {host}:{port} as {settings.title}, {'TLS' if context else 'no TLS'}")
        stop.wait()
        entity.shutdown()  # what is half received is aborted; the archive sends it again


def _be_alone(lock: Any, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError("another receiver is at work there", where=str(folder)) from None
    for part in (folder / inbox.PARTS).glob("tmp*"):
        part.unlink()


def _be_quiet(folder: Path, tell: Tell) -> None:
    """Objects are received into the inbox, none larger than is read; nothing that was sent is logged: of what
    ends a connection's thread the kind is told, for what a peer sent may stand in the text.
    """
    from pynetdicom import _config

    _config.STORE_RECV_CHUNKED_DATASET = True
    tempfile.tempdir = str(folder.resolve() / inbox.PARTS)
    for what, limit in ((resource.RLIMIT_FSIZE, inbox.MAXIMUM_BYTES), (resource.RLIMIT_AS, MEMORY_BYTES)):
        resource.setrlimit(what, (limit, resource.getrlimit(what)[1]))
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    threading.excepthook = lambda ended: tell(f"a connection ended early: {ended.exc_type.__name__}")
    warnings.simplefilter("ignore")


def _entity(settings: Receiver) -> Any:
    from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts

    entity = AE(settings.title)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context("1.2.840.10008.1.1")  # C-ECHO
    entity.require_called_aet = True
    entity.require_calling_aet = list(settings.callers)
    entity.maximum_associations = MOST_ASSOCIATIONS
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = TIMEOUT_S
    return entity


def _tls(home: Path, certificates: Certificates) -> ssl.SSLContext:
    """A context that asks for the other side's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(home / certificates.certificate, home / certificates.key)
        context.load_verify_locations(home / certificates.ca)
    except OSError as error:
        raise ConfigError(f"the receiver's certificates can't be used: {error.strerror or 'not PEM'}",
                          hint="see `receiver: tls:` in site.yaml") from None  # fmt: skip
    return context
