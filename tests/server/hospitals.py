"""Three real sites in this process, behind a post office, and runs of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedai_server.runs import RunDatabase
from fedai_server.server_app import conduct
from fedai_site.client_app import Bench
from fedai_site.home import SiteHome
from homes import make_home
from post_office import Answer, PostOffice, Site
from studies import small_study

from fedai.study import Study
from fedai.wire import Task

SITES = ("north", "east", "south")
STUDY = small_study(rounds={"grace_s": 2, "deadline_s": 30, "waiting_s": 30})
Change = Callable[[Task], Answer]


def make_hospitals(folder: Path) -> dict[str, SiteHome]:
    return {name: make_home(folder, name, 28, first=28 * index) for index, name in enumerate(SITES)}


def at(
    hospitals: dict[str, SiteHome], study: Study = STUDY, run_id: int = 1, **instead: dict[str, Change]
) -> PostOffice:
    """Real sites; `instead` says what one of them does with a kind of task instead of its work."""

    def script(name: str) -> Change:
        bench, changes = Bench(hospitals[name], study, lambda: True), instead.get(name, {})
        return lambda task: changes.get(task.kind, lambda asked: bench.answer(asked, run_id))(task)

    return PostOffice({name: Site(script(name)) for name in SITES})


def run_of(
    folder: Path, grid: PostOffice, study: Study = STUDY
) -> tuple[RunDatabase, Path, Callable[[], None]]:
    """The database, the registry's folder, and the run itself, to be called."""
    folder.mkdir(exist_ok=True)
    runs = RunDatabase(folder / "runs.sqlite")
    name = runs.plan(study)
    registry = folder / "registry" / name
    return runs, registry, lambda: conduct(grid, study, name, runs, registry)
