"""Who may import what, and which ways of loading code or data that could be code exist at all.

The contracts of import-linter (pyproject.toml) hold the walls between packages; what they can't say is
read from the sources here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "fedai": ROOT / "fedai",
    "fedai_site": ROOT / "sites/fedai_site",
    "fedai_server": ROOT / "server/fedai_server",
}

NETWORK = {
    "socket", "ssl", "http", "httpx", "urllib", "urllib3", "requests", "aiohttp", "asyncio", "socketserver",
    "websockets", "grpc", "ftplib", "smtplib", "poplib", "imaplib", "telnetlib", "xmlrpc", "paramiko",
    "uvicorn", "fastapi", "starlette", "pynetdicom", "dicomweb_client", "webbrowser", "wsgiref", "selectors",
}  # fmt: skip
MAY_CONNECT = {
    "fedai_site.fleet": {"httpx", "ssl"},
    "fedai_site.confinement": {"httpx", "socket"},  # refuses; resolves the server's name and reads a URL
    "fedai_site.receiver": {"pynetdicom", "ssl"},  # listens; opens no connection
    "fedai_site.dicomweb": {"dicomweb_client", "requests"},  # to the hospital's own archive
    "fedai_server.certificates": {
        "asyncio",
        "ssl",
    },  # a handshake in memory, a look now and then; opens no connection
    "fedai_server.control": {"httpx"},
    "fedai_server.middlewares": {"starlette"},
    "fedai_server.superlink": {"asyncio", "socket", "ssl", "uvicorn"},
    "fedai_server.gate": {"asyncio"},  # deadlines and threads; opens no connection
    "fedai_server.listener": {"asyncio", "socket", "uvicorn"},
    "fedai_server.processes": {"http", "socket", "ssl"},
    "fedai_server.watch": {"http"},  # listens on loopback, where a port is set; opens no connection
    "fedai.demo.federation": {"socket"},  # looks for free ports; opens no connection
}
FLOWERS_OWN = ("flwr.app", "flwr.clientapp", "flwr.serverapp")
MAY_TOUCH_FLOWERS_INSIDE = {
    "fedai_site.fleet", "fedai_server.bundle", "fedai_server.callers", "fedai_server.calls",
    "fedai_server.control", "fedai_server.grid", "fedai_server.superexec", "fedai_server.superlink",
}  # fmt: skip
MAY_USE_DICOM = (
    "fedai_site.intake", "fedai_site.deidentify", "fedai_site.verification", "fedai.demo.hospital",
    "fedai.demo.exposures",
)  # fmt: skip
MAY_START_PROCESSES = {
    "fedai_site.deidentify.engines": {"concurrent", "multiprocessing"},  # the pool of a folder run
    "fedai_site.decoding": {"subprocess"},  # tries broken pixels in a child
    "fedai_site.fetching": {"subprocess"},  # asks the archive in a child that holds no key
    "fedai_site.verification.folder": {"concurrent", "multiprocessing"},  # a decoder may die with its process
    "fedai_server.processes": {"subprocess"},
    "fedai.demo.federation": {"subprocess"},
    "fedai.demo.hospital": {"multiprocessing"},
    "fedai.simulate": {"multiprocessing"},  # workers of a simulation, over invented sites
    "fedai.bundles": {"subprocess"},  # MONAI runs what was exported, before it is handed over
}
CODE_FROM_DATA = {
    "eval", "exec", "compile", "__import__", "import_module", "find_spec", "spec_from_file_location",
    "run_path", "run_module", "load_module", "loads_pickle",
}  # fmt: skip
NEVER = {
    "pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "imp", "zipimport",
    "code", "codeop", "ctypes", "cffi", "pty",
}  # fmt: skip
UNSAFE_READERS = ("torch.load", "torch.hub", "torch.jit.load", "yaml.load", "yaml.unsafe", "yaml.full")
WRITTEN_JUST_BEFORE = ["torch.jit.load(str(partial))(samples)", "torch.jit.load(str(partial))"]
"""An export is loaded back to compare it, from the file that the line before wrote."""
MAY_LOAD_CODE = {
    "fedai.cli.simulate": {"entry_points"},  # of the group fedai.simulation: what opens homes
    "fedai.cli.app": {"import_module", "entry_points"},  # names in its own source, and installed commands
    "fedai.registry": {"entry_points"},  # networks that this installation provides
    "fedai.tasks.classification": {"entry_points"},
}


@cache
def sources() -> dict[str, ast.Module]:
    """Module name -> its source as a tree, for every module of the three packages."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imports_of(module: str) -> Iterator[str]:
    """Every name that a module imports, wherever in it: `a.b` and `a.b.c` for `from a.b import c`."""
    for node in ast.walk(sources()[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide from these tests"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def roots_of(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(module)}


def calls_of(module: str) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name, call) of everything that a module calls by name."""
    for node in ast.walk(sources()[module]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_the_contracts_of_import_linter_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_the_two_sides_never_import_each_other_and_the_core_imports_neither() -> None:
    forbidden = {
        "fedai": {"fedai_site", "fedai_server"},
        "fedai_site": {"fedai_server"},
        "fedai_server": {"fedai_site"},
    }
    broken = {m: roots_of(m) & forbidden[m.partition(".")[0]] for m in sources()}
    assert {module: found for module, found in broken.items() if found} == {}


def test_dicom_is_opened_by_intake_and_deidentification_alone() -> None:
    users = {
        m
        for m in sources()
        if roots_of(m) & {"pydicom", "gdcm", "openjpeg", "pylibjpeg", "SimpleITK", "itk", "nibabel"}
    }
    assert {m for m in users if not m.startswith(MAY_USE_DICOM)} == set()
    assert "fedai_site.intake" in users


def test_sockets_and_http_are_in_the_modules_that_own_them_alone() -> None:
    found = {m: roots_of(m) & NETWORK for m in sources()}
    assert {m: used for m, used in found.items() if used - MAY_CONNECT.get(m, set())} == {}
    assert {m: allowed - found[m] for m, allowed in MAY_CONNECT.items() if allowed - found[m]} == {}


def test_at_a_site_one_module_connects_to_the_server_one_to_the_archive_one_listens_and_one_refuses() -> None:
    assert {m for m in sources() if m.startswith("fedai_site") and roots_of(m) & NETWORK} == {
        "fedai_site.fleet", "fedai_site.dicomweb", "fedai_site.receiver", "fedai_site.confinement",
    }  # fmt: skip


def test_what_talks_to_the_archive_knows_neither_keys_nor_data_sets_nor_the_server() -> None:
    """They run in processes of their own: what they import is what is in those processes."""
    for module in ("receiver", "dicomweb"):
        own = {name for name in imports_of(f"fedai_site.{module}") if name.startswith("fedai")}
        assert own <= {
            "fedai.errors", "fedai.errors.ConfigError", "fedai_site", "fedai_site.inbox", "fedai_site.pacs",
            "fedai_site.pacs.Certificates", "fedai_site.pacs.Receiver",
        }  # fmt: skip
        assert "pydicom" not in roots_of(f"fedai_site.{module}")
    assert not [m for m in sources() if "fedai_site.dicomweb" in imports_of(m)]
    assert [m for m in sources() if "fedai_site.receiver" in imports_of(m)] == ["fedai_site.cli_data"]


def test_flowers_inside_is_touched_by_the_modules_that_own_it_alone() -> None:
    inside = {
        m: {name for name in imports_of(m) if name.startswith("flwr.") and not name.startswith(FLOWERS_OWN)}
        for m in sources()
    }
    assert {m for m, names in inside.items() if names} == MAY_TOUCH_FLOWERS_INSIDE


def test_processes_are_started_by_the_modules_that_say_so_alone() -> None:
    found = {m: roots_of(m) & {"subprocess", "multiprocessing", "concurrent"} for m in sources()}
    assert {m: used for m, used in found.items() if used} == MAY_START_PROCESSES
    shells = ("os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "os.fork")
    started = [(m, name) for m in sources() for name, _ in calls_of(m) if name.startswith(shells)]
    assert started == [("fedai_site.decoding", "os.fork")]  # who tries a stream that was damaged on purpose


def test_no_code_is_loaded_from_data() -> None:
    found: dict[str, set[str]] = {}
    for module in sources():
        for name, _ in calls_of(module):
            last = name.rpartition(".")[2]
            if (
                name in CODE_FROM_DATA
                or last in (CODE_FROM_DATA - {"eval", "exec", "compile"})
                or last == "entry_points"
            ):
                found.setdefault(module, set()).add(last)
    assert found == MAY_LOAD_CODE
    assert {m: roots_of(m) & NEVER for m in sources() if roots_of(m) & NEVER} == {}


def test_files_are_read_in_ways_that_run_nothing() -> None:
    """torch.load and yaml.load unpickle or construct what a file says; np.load does unless told not to."""
    bad = []
    for module in sources():
        for name, call in calls_of(module):
            options = {word.arg: ast.unparse(word.value) for word in call.keywords}
            loads_array = name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False"
            if loads_array or name.startswith(UNSAFE_READERS):
                bad.append((module, ast.unparse(call)))
    assert [call for module, call in bad if module == "fedai.exports"] == WRITTEN_JUST_BEFORE
    assert [found for found in bad if found[0] != "fedai.exports"] == []


@pytest.mark.parametrize(
    ("code", "sees"),
    [("import httpx", "httpx"), ("def f():\n    from socket import create_connection", "socket"),
     ("if True:\n    import urllib.request as u", "urllib")],
)  # fmt: skip
def test_the_reader_of_sources_sees_imports_wherever_they_are(
    monkeypatch: pytest.MonkeyPatch, code: str, sees: str
) -> None:
    monkeypatch.setitem(sources(), "invented", ast.parse(code))
    assert sees in roots_of("invented")
