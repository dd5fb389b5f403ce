"""A hostile coordinator, for tests: bundles with Python, and a ServerApp that sends what a test says."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation_processes import wait_for
from federation_sites import Federation

from fedai.release import BUNDLE_SHA256

PROJECT = b"""
[project]
name = "fedai"
version = "0.1.0"
license = { file = "LICENSE" }
dependencies = []
[tool.flwr.app]
publisher = "fedai"
[tool.flwr.app.components]
serverapp = "hostile_server:app"
clientapp = "fedai_site.client_app:app"
[tool.flwr.app.config]
study = ""
"""
AT_SITES = """
from pathlib import Path
Path({marker!r}).write_text("code of the bundle ran")
from flwr.clientapp import ClientApp
app = ClientApp()
"""
AT_SERVER = """
import json, os, time
from pathlib import Path
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    folder = Path(os.environ["FEDAI_SERVER_HOME"]) / "hostile" / str(context.run_id)
    folder.mkdir(parents=True)
    while not (folder / "tasks.json").exists():
        time.sleep(0.05)
    nodes = {node.name: node.node_id for node in grid.get_nodes()}
    messages = [
        Message(RecordDict({"task": ConfigRecord({"head": head}), "arrays": ArrayRecord({})}),
                dst_node_id=nodes[site], message_type=kind, ttl=300)
        for site, kind, head in json.loads((folder / "tasks.json").read_text())
    ]
    sent, answers = list(grid.push_messages(messages)), {}
    until = time.monotonic() + 90
    while len(answers) < len(sent) and time.monotonic() < until:
        for reply in grid.pull_messages([one for one in sent if one not in answers]):
            error = [reply.error.code, reply.error.reason] if reply.has_error() else None
            answers[reply.metadata.reply_to_message_id] = error
        time.sleep(0.1)
    (folder / "partial").write_text(json.dumps([answers.get(one, "no answer") for one in sent]))
    (folder / "partial").rename(folder / "answers.json")
"""


@dataclass(frozen=True)
class Hostile:
    """A run whose server side does what a test says."""

    federation: Federation
    run_id: int

    @property
    def folder(self) -> Path:
        return self.federation.home.folder / "hostile" / str(self.run_id)

    def lie_about_the_bundle(self) -> None:
        """From now on the SuperLink says that the run's bundle is this release's."""
        with sqlite3.connect(self.federation.home.database, timeout=30) as database:
            changed = database.execute("UPDATE run SET fab_hash = ? WHERE run_id = ?",
                                       (BUNDLE_SHA256, _signed(self.run_id)))  # fmt: skip
            assert changed.rowcount == 1

    def ask(self, tasks: list[tuple[str, str, str]]) -> list[Any]:
        """Send (site, message type, head) and give each answer: [code, reason], or None for content."""
        (self.folder / "partial").write_text(json.dumps(tasks))
        (self.folder / "partial").rename(self.folder / "tasks.json")
        answers = self.folder / "answers.json"
        wait_for(answers.exists, 150, "the answers")
        return list(json.loads(answers.read_text()))


def start_hostile(federation: Federation, marker: Path, study_text: str) -> Hostile:
    """Start a run whose bundle shadows fedai_site with code that writes `marker`; its ServerApp waits."""
    from fedai_server.control import Control
    from flwr.cli.build import build_fab_from_files

    at_sites = AT_SITES.format(marker=str(marker)).encode()
    files = {"pyproject.toml": PROJECT, "LICENSE": b"none", "hostile_server.py": AT_SERVER.encode()}
    files |= {"fedai_site/__init__.py": at_sites, "fedai_site/client_app.py": at_sites}
    bundle, _ = build_fab_from_files(files)
    with Control(federation.home) as control:
        hostile = Hostile(federation, control.start_run(bundle, study_text))
    wait_for(hostile.folder.is_dir, 60, f"the hostile ServerApp\n{federation.told()}")
    return hostile


def task_head(study_sha256: str, **changes: Any) -> str:
    """The head of a task as our own server writes it, with changes."""
    head = {"kind": "ready", "study": study_sha256, "run": "hostile-1", "round": 0, "model": "", "models": [],
            "layout": ""}  # fmt: skip
    return json.dumps(head | changes)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
