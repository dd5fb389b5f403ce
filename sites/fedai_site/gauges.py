"""The site's numbers for the hospital's own monitoring, in Prometheus' text format: no port, no connection.

`fedai site status --prometheus` prints them. Where site.yaml names a `metrics_file`, a thread of the
agent's writes them there once a minute, whole or not at all, for node_exporter's textfile collector; so they
come while the agent trains or is stuck, too. Counts are exact, below the smallest cell too: the file is the
hospital's, and nothing of it is ever sent.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedai.errors import FedaiError
from fedai.exposition import Family, page, single
from fedai.ledger import Ledger
from fedai_site.catalogue import Catalogue
from fedai_site.home import SiteHome
from fedai_site.inbox import INBOX, what_waits
from fedai_site.overview import agent_facts
from fedai_site.watchdog import Watchdog
from fedai_site.witness import verify

EVERY_S = 60.0
NO_BATCH = "Since the last batch of the task in hand; 0 without one."

log = logging.getLogger("fedai.site.gauges")


@contextmanager
def kept(home: SiteHome, dog: Watchdog) -> Iterator[None]:
    """Write `metrics_file`, where there is one, for as long as the block lasts, and once more at its end."""
    file, done = home.settings.metrics_file, threading.Event()
    if file is None:
        yield
        return

    def write() -> None:
        try:
            write_page(home.folder / file, text_of(home, dog))
        except (OSError, sqlite3.Error, FedaiError) as error:
            # the agent goes on; the file that is there tells by its age
            log.warning("the numbers can't be written: %s", error)

    def keep() -> None:
        write()
        while not done.wait(EVERY_S):
            write()

    thread = threading.Thread(target=keep, name="gauges", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=EVERY_S)
        write()


def write_page(file: Path, text: str) -> None:
    """Put `text` in the place of what is there. Raises OSError."""
    partial = file.with_name(f".{file.name}.partial")  # the collector reads *.prom
    partial.write_text(text, encoding="utf-8")
    partial.chmod(0o644)
    partial.replace(file)


def text_of(home: SiteHome, dog: Watchdog | None = None) -> str:
    """All numbers; of what is told by the agent alone (`dog`) only in its process. Raises DataError."""
    return page(_labelled(home.settings.name, [*_agent(home, dog), *_data(home), *_ledger(home)]))


def _labelled(site: str, families: list[Family]) -> Iterator[Family]:
    for family in families:
        family.samples = [({"site": site, **labels}, value) for labels, value in family.samples]
        yield family


def _agent(home: SiteHome, dog: Watchdog | None) -> Iterator[Family]:
    state = str(agent_facts(home)["state"]).replace(" ", "_")
    yield Family("fedai_site_agent", "What the agent does, by its word.", samples=[({"state": state}, 1)])
    try:
        heard = (home.folder / "node").stat().st_mtime
        yield single("fedai_site_last_contact_seconds", "Unix time of the server's last answer.", heard)
    except FileNotFoundError:
        log.debug("the server was never reached")
    if dog is not None:
        yield single("fedai_site_seconds_without_batch", NO_BATCH, round(dog.idle_minutes() * 60, 1))
        yield single("fedai_site_stuck", "1 where that is longer than stuck_minutes.", dog.is_stuck())
    yield single("fedai_site_written_seconds", "Unix time of these numbers.", round(time.time(), 3))


def _data(home: SiteHome) -> Iterator[Family]:
    files = Family("fedai_site_files", "Files of the catalogue: WRITTEN, or why in quarantine.")
    with Catalogue(home.catalogue) as catalogue:
        for state, count in sorted(catalogue.states().items()):
            files.add(count, state=state)
    yield files
    yield single("fedai_site_inbox_files", "Originals that wait.", what_waits(home.folder / INBOX)[0])
    yield single("fedai_site_disk_free_bytes", "Where the home is.", shutil.disk_usage(home.folder).free)


def _ledger(home: SiteHome) -> Iterator[Family]:
    try:
        lines = verify(home).lines
        counts, sent = _counted(home.ledger)
    except FedaiError as error:
        log.warning("the ledger doesn't hold: %s", error)
        yield single("fedai_site_ledger_ok", "1 where chain, heads and witness hold.", 0)
        return
    yield single("fedai_site_ledger_ok", "1 where chain, heads and witness hold.", 1)
    yield single("fedai_site_ledger_lines", "Lines of the ledger.", lines)
    total = Family("fedai_site_messages_total", "Lines by kind, task, and an error's code.", "counter")
    for (kind, task, code), count in sorted(counts.items()):
        total.add(count, kind=kind, task=task, code=code)
    yield total
    yield Family("fedai_site_sent_bytes_total", "Of replies, as packed.", "counter", [({}, sent)])


def _counted(ledger: Path) -> tuple[Counter[tuple[str, str, str]], int]:
    counts, sent = Counter[tuple[str, str, str]](), 0
    for line in Ledger(ledger).lines():
        counts[line["kind"], line.get("task", ""), line.get("code", "")] += 1
        sent += line.get("bytes", 0)
    return counts, sent
