"""Wall 2, errors: an exception that carries a patient's name leaves as a code and a reference alone."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fedai_server.launch import halt
from federation_processes import wait_for
from federation_sites import Federation

from fedai.demo.leaks import Search

pytestmark = pytest.mark.federation
MISSING, BROKEN = "Hongseokjin^Gildong^4711", "Garciaperez^Maria^4712"  # long: random bytes spell short ones


@contextmanager
def catalogued_at(home: Path, name: str, *, as_folder: bool) -> Iterator[None]:
    """The clean files of a site's first object are said to lie at a path with a patient's name in it."""
    with sqlite3.connect(home / "catalogue.sqlite", timeout=30) as catalogue:
        before = catalogue.execute("SELECT id, path FROM objects").fetchall()
        catalogue.execute("UPDATE objects SET path = ?", (f"clean/{name}/image.dcm",))
    if as_folder:
        (home / "clean" / name / "image.dcm").mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(home / "clean" / name, ignore_errors=True)
        with sqlite3.connect(home / "catalogue.sqlite", timeout=30) as catalogue:
            catalogue.executemany(
                "UPDATE objects SET path = ? WHERE id = ?", [(path, key) for key, path in before]
            )


def test_an_exception_with_a_patients_name_leaves_as_a_code_and_a_reference(federation: Federation) -> None:
    north, east = (federation.sites[name].home for name in ("north", "east"))
    study = federation.study("named", sites=("north", "east", "south"), quorum=1)
    with (
        catalogued_at(north.folder, MISSING, as_folder=False),
        catalogued_at(east.folder, BROKEN, as_folder=True),
    ):
        run = federation.start_run(study)
        wait_for(lambda: bool(federation.runs.record(run)["rounds"]), 150, f"a round\n{federation.told()}")
        halt(federation.home, run)
    (closed,) = federation.runs.record(run)["rounds"]
    assert closed["answered"] == ["south"]
    assert re.fullmatch(r"DATA [0-9a-f]{12}", closed["refused"]["north"])  # an error of the tree
    assert re.fullmatch(r"BUG [0-9a-f]{12}", closed["refused"]["east"])  # one that nobody foresaw
    for home, name, site in ((north, MISSING, "north"), (east, BROKEN, "east")):
        log = home.log.read_text()
        assert name in log
        assert closed["refused"][site].split()[1] in log
    at_server = [
        path for folder in (federation.received, federation.home.folder) for path in folder.rglob("*")
    ]
    search = Search.of([MISSING, BROKEN, MISSING.partition("^")[0], BROKEN.partition("^")[0]])
    assert search.in_file(north.log)
    assert search.in_file(east.log)
    assert search.in_files(path for path in at_server if path.is_file()) == []


def test_no_planted_identifier_is_in_anything_that_the_server_has(
    federation: Federation, whole_run: object, misbehaving: object
) -> None:
    from faulty_site import PLANTED

    at_server = [
        path for folder in (federation.received, federation.home.folder) for path in folder.rglob("*")
    ]
    search = Search.of(federation.identifiers)
    assert search.in_file(federation.folder / "hospitals" / "north" / "labels.csv")
    assert search.in_files(path for path in at_server if path.is_file()) == []
    past_egress = Search.of([PLANTED]).in_files(path for path in federation.received.iterdir())
    assert past_egress, "what a site sends past its egress is found, so the search sees"
