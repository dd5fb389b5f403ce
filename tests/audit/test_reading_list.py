"""The reviewer's reading list in sites/README.md is true and whole."""

from __future__ import annotations

import ast

import pytest
from reading_list import README, ROOT, as_it_is, counted, told

WALLS = {
    "fedai/wire.py", "fedai/flower.py", "sites/fedai_site/agent.py", "sites/fedai_site/fleet.py",
    "sites/fedai_site/client_app.py", "sites/fedai_site/egress.py", "fedai/ledger.py",
    "sites/fedai_site/policy.py", "sites/fedai_site/replies.py", "sites/fedai_site/intake.py",
    "sites/fedai_site/decoding.py", "sites/fedai_site/tripwire.py", "sites/fedai_site/witness.py",
    "sites/fedai_site/sent.py", "sites/fedai_site/approvals.py", "sites/fedai_site/permit.py",
    "sites/fedai_site/budget.py", "fedai/signatures.py", "fedai/heads.py", "sites/fedai_site/receiver.py",
    "sites/fedai_site/dicomweb.py", "sites/fedai_site/fetching.py", "sites/fedai_site/inbox.py",
    "sites/fedai_site/archives.py", "sites/fedai_site/sources.py", "sites/fedai_site/pacs.py",
    "sites/fedai_site/traits.py", "sites/fedai_site/requests.py", "sites/fedai_site/confinement.py",
    "sites/fedai_site/groups.py", "sites/fedai_site/withheld.py", "sites/fedai_site/parts.py",
    "sites/fedai_site/readiness.py", "fedai/overview.py",
}  # fmt: skip


def test_every_module_behind_the_walls_is_listed() -> None:
    deidentify = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "sites/fedai_site/deidentify").glob("*.py")
    }
    assert set(told()) >= WALLS | {path for path in deidentify if not path.endswith("__init__.py")}


def test_the_line_counts_are_true() -> None:
    text = README.read_text(encoding="utf-8")
    assert as_it_is(text) == text, "run: python tests/audit/reading_list.py"


def test_what_stands_at_the_doors_can_be_read_in_an_afternoon() -> None:
    doors = [name for name in told() if "/deidentify/" not in name and "/verification/" not in name]
    assert set(doors) >= WALLS
    assert sum(map(counted, doors)) <= 7500  # 6,400 before subgroups, masks, a confined agent, overviews


def test_code_that_touches_flower_or_dicom_at_a_site_is_on_the_list() -> None:
    """Whatever imports flwr, httpx, ssl or pydicom under sites/ must be read by the reviewer."""
    for path in (ROOT / "sites/fedai_site").rglob("*.py"):
        imported = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
        }
        if imported & {
            "flwr",
            "httpx",
            "ssl",
            "socket",
            "pydicom",
            "pynetdicom",
            "dicomweb_client",
            "requests",
        }:
            assert path.relative_to(ROOT).as_posix() in told()


@pytest.mark.parametrize("module", sorted(WALLS))
def test_a_listed_module_fits_the_hour(module: str) -> None:
    assert counted(module) <= 400
