"""Fetching from a DICOMweb service: paging, faults of the archive, going on, what the process touches."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from dicom_files import encode, radiograph
from dicomweb_archive import Archive, serving
from fedai_site import dicomweb, inbox
from fedai_site.adding import Added, add_inbox
from fedai_site.catalogue import Catalogue
from fedai_site.deidentify import create_secret
from fedai_site.deidentify.review import listed
from fedai_site.fetching import Fetching, filters, service
from fedai_site.pacs import Dicomweb
from pydantic import ValidationError

from fedai.errors import ConfigError, DataError

WITNESS = Path(__file__).parents[1] / "audit" / "witness"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "keys").mkdir(parents=True)
    create_secret(tmp_path / "home" / "keys" / "pseudonym.key")
    return tmp_path / "home"


def objects(number: int, **more: Any) -> list[bytes]:
    """Each study has two series of two objects."""
    return [encode(radiograph(n, f"P{n // 4}", **parents(n), **more)) for n in range(number)]


def parents(number: int) -> dict[str, str]:
    return {"StudyInstanceUID": f"1.2.4.{number // 4}", "SeriesInstanceUID": f"1.2.5.{number // 2}"}


def fetched(home: Path, url: str, *given: str, new_only: bool = False) -> tuple[Added, Fetching]:
    fetching = Fetching(home, Dicomweb(url=url), given, new_only)
    return add_inbox(home, None, coming=fetching.coming, processes=1), fetching


def known(home: Path) -> dict[str, str]:
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        entries = catalogue.labelled()
    assert {home / entry.path for entry in entries} == set((home / "clean").rglob("*.dcm"))
    return {entry.id: entry.sha256 for entry in entries}


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_whatever_an_archives_pages_are_each_object_comes_once(home: Path, page: int) -> None:
    archive = Archive(objects(9), page=page)
    with serving(archive) as url:
        added, fetching = fetched(home, url)
    fetching.check()
    assert (added.found, added.written, fetching.kept) == (9, 9, 9)
    assert archive.fetched() == 9
    assert len(known(home)) == 9
    assert list(inbox.waiting(home / "inbox")) == []


def test_an_archive_that_knows_no_offset_ends_too(home: Path) -> None:
    archive = Archive(objects(3))
    original = archive.answer
    archive.answer = lambda path, query: original(path, query | {"offset": ["0"]})  # type: ignore[method-assign]
    with serving(archive) as url:
        added, fetching = fetched(home, url)
    fetching.check()
    assert added.written == 3


def test_filters_are_the_archives_to_match(home: Path) -> None:
    archive = Archive([*objects(8), encode(radiograph(99, "P9", Modality="CT"))])
    with serving(archive) as url:
        added, _ = fetched(home, url, "Modality=CR", "PatientID=P1")
    assert added.written == 4


def test_what_the_archive_is_busy_with_is_asked_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(archive: Archive, path: str, times: int) -> tuple[int, dict[str, str], bytes] | None:
        return (503, {}, b"") if times == 1 else None

    archive = Archive(objects(2), fault=busy)
    with serving(archive) as url:
        added, fetching = fetched(home, url)
    fetching.check()
    assert added.written == 2
    assert min(archive.asked.values()) >= 2


def test_an_answer_that_ends_early_is_asked_for_again(home: Path) -> None:
    whole = Archive(objects(1))

    def cut(archive: Archive, path: str, times: int) -> tuple[int, dict[str, str], bytes] | None:
        if "/instances/" not in path or times > 1:
            return None
        status, headers, body = whole.answer(path, {})
        return status, headers, body[:-40]

    with serving(Archive(objects(1), fault=cut)) as url:
        added, fetching = fetched(home, url)
    fetching.check()
    assert (added.written, added.quarantined) == (1, {})


@pytest.mark.parametrize("status", [404, 500])
def test_one_object_that_isnt_given_out_is_told_and_the_rest_comes(home: Path, status: int) -> None:
    def lost(archive: Archive, path: str, times: int) -> tuple[int, dict[str, str], bytes] | None:
        return (status, {}, b"") if path.endswith("instances/1.2.3.2") else None

    archive = Archive(objects(5), fault=lost)
    with serving(archive) as url:
        added, fetching = fetched(home, url)
        with pytest.raises(DataError, match="4 objects came, 1 were not given out"):
            fetching.check()
        assert (added.written, added.quarantined) == (4, {"MISSING": 1})
        assert [item["sources"] for item in listed(home / "deid")] == [
            [str(home.resolve() / "inbox" / "not-given-out" / "1.2.3.2")]
        ]
        archive.fault, before = None, archive.fetched()
        added, fetching = fetched(home, url)
    fetching.check()
    assert archive.fetched() == before + 1
    assert (added.found, added.written) == (1, 1)
    assert listed(home / "deid") == []
    assert len(known(home)) == 5


def test_a_broken_object_is_quarantined_where_it_lies(home: Path) -> None:
    image = radiograph(7)
    image.PixelData = b"12"
    with serving(Archive([*objects(2), encode(image)])) as url:
        added, fetching = fetched(home, url)
    fetching.check()
    assert (added.written, added.quarantined) == (2, {"PIXEL_SIZE": 1})
    (item,) = listed(home / "deid")
    assert [Path(path).is_file() for path in item["sources"]] == [True]


@pytest.mark.parametrize(
    ("answer", "told"),
    [((302, {"Location": "http://127.0.0.1:9/elsewhere"}, b""), "redirect"), ((401, {}, b""), "HTTP 401"),
     ((400, {}, b""), "HTTP 400")],
)  # fmt: skip
def test_an_archive_that_sends_elsewhere_or_refuses_is_told(
    home: Path, answer: tuple[int, dict[str, str], bytes], told: str
) -> None:
    with serving(Archive(objects(2), fault=lambda *_: answer)) as url:
        added, fetching = fetched(home, url)
    assert added.found == 0
    with pytest.raises(DataError, match=told):
        fetching.check()


def test_a_finished_question_asked_again_brings_new_versions_and_changes_nothing_else(home: Path) -> None:
    archive = Archive(objects(4))
    with serving(archive) as url:
        fetched(home, url)
        before = known(home)
        added, _ = fetched(home, url)
        assert (added.already, added.written) == (4, 0)
        assert known(home) == before
        archive.put(
            encode(radiograph(1, "P0", rows=20, StudyInstanceUID="1.2.4.0", SeriesInstanceUID="1.2.5.0"))
        )
        added, _ = fetched(home, url)
        assert (added.already, added.written) == (3, 1)
    after = known(home)
    assert before.keys() == after.keys()
    assert sum(before[name] != after[name] for name in before) == 1


def test_with_new_only_what_came_before_isnt_fetched_again(home: Path) -> None:
    archive = Archive(objects(4))
    with serving(archive) as url:
        fetched(home, url, new_only=True)
        archive.put(encode(radiograph(50)))
        added, fetching = fetched(home, url, new_only=True)
    fetching.check()
    assert (added.found, archive.fetched()) == (1, 5)


def slowly(archive: Archive, path: str, times: int) -> None:
    if "/instances/" in path:
        time.sleep(0.1)


def test_an_ingest_whose_fetching_process_is_killed_goes_on_where_it_stopped(home: Path) -> None:
    archive = Archive(objects(12), fault=slowly)
    with serving(archive) as url:
        fetching = Fetching(home, Dicomweb(url=url))

        def coming() -> Any:
            for number, path in enumerate(fetching.coming()):
                yield path
                if number == 4:
                    os.kill(_child(), signal.SIGKILL)

        added = add_inbox(home, None, coming=coming, processes=1)
        assert 5 <= added.written < 12
        with pytest.raises(DataError, match="ended early"):
            fetching.check()
        _, again = fetched(home, url)
    again.check()
    assert len(known(home)) == 12
    assert archive.fetched() <= 13  # one may have been on its way


def _child() -> int:
    """The process that fetches, among this one's children."""
    found = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"fedai_site.dicomweb" in _read(path)
        and _read(path.with_name("stat")).split()[3:4] == [str(os.getpid()).encode()]
    ]
    (pid,) = found
    return pid


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_process_that_fetches_contacts_the_archive_alone_and_opens_no_key(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(WITNESS))
    monkeypatch.setenv("FEDAI_WITNESS", str(tmp_path / "notes"))
    monkeypatch.setenv("FEDAI_WITNESS_ALSO", "/keys")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("FEDAI_DICOMWEB_AUTHORIZATION", "Bearer 1")
    archive = Archive(objects(3))
    with serving(archive) as url:
        _, fetching = fetched(home, url)
    fetching.check()
    notes = [
        json.loads(line) for path in (tmp_path / "notes").iterdir() for line in path.read_text().splitlines()
    ]
    own = next(
        note["pid"] for note in notes if note["event"] == "process" and dicomweb.__name__ in note["told"]
    )
    calls = {(note["event"], json.dumps(note["told"][:2])) for note in notes if note["pid"] == own}
    port = int(url.split(":")[2].split("/")[0])
    asked = {event for event, _ in calls} - {"process"}
    assert asked == {"socket.connect", "socket.getaddrinfo"}
    assert all(f'"127.0.0.1", {port}' in told for event, told in calls if event != "process")
    assert {headers["Authorization"] for headers in archive.headers} == {"Bearer 1"}


@pytest.mark.parametrize(
    "settings",
    [{"url": "http://pacs.example.org/dicom-web"}, {"url": "ftp://127.0.0.1/"}, {"url": "nothing"},
     {"url": "https://me:secret@pacs.example.org/"}, {"url": "https://pacs.example.org/?a=b"},
     {"url": "https://pacs.example.org/", "key": "a.key"}],
)  # fmt: skip
def test_an_address_that_is_not_safe_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Dicomweb.model_validate(settings)


@pytest.mark.parametrize(
    "url", ["https://pacs.example.org/dicom-web", "http://127.0.0.1:8042/", "http://[::1]:1/a"]
)
def test_https_or_this_machine_is_accepted(url: str) -> None:
    assert Dicomweb(url=url).url == url.rstrip("/")


def test_only_what_site_yaml_names_is_contacted() -> None:
    named = {"pacs": Dicomweb(url="https://pacs.example.org/dicom-web")}
    assert service(named, "pacs") == service(named, "https://pacs.example.org/dicom-web/") == named["pacs"]
    with pytest.raises(ConfigError, match="names no DICOMweb service"):
        service(named, "https://elsewhere.example.org")


def test_filters_belong_to_studies_or_series_and_their_values_are_never_told() -> None:
    assert filters(["Modality=CR", "StudyDate=20200101-20201231"]) == (
        {"StudyDate": "20200101-20201231"}, {"Modality": "CR"},
    )  # fmt: skip
    for given in (
        ["PatientName=Hong"],
        ["Hong^Gildong"],
        ["12345678"],
        ["Modality="],
        ["Modality=CR", "Modality=DX"],
    ):
        with pytest.raises(ConfigError) as caught:
            filters(given)
        assert "Hong" not in str(caught.value)
        assert "12345678" not in str(caught.value)


def test_pauses_grow_and_have_an_end() -> None:
    pauses: list[float] = []

    def away() -> None:
        raise requests.ConnectionError

    with pytest.raises(dicomweb.Stopped, match="doesn't answer"):
        dicomweb.asked(away, pauses.append)
    assert pauses == sorted(pauses)
    assert len(pauses) == dicomweb.ATTEMPTS - 1
    assert max(pauses) <= dicomweb.LONGEST_PAUSE_S


def test_the_process_ends_with_whoever_started_it(home: Path) -> None:
    """Whoever reads is gone: the next object that it would tell of ends it."""
    archive = Archive(objects(8), fault=slowly)
    with serving(archive) as url:
        stream = Fetching(home, Dicomweb(url=url)).coming()
        next(iter(stream))
        pid = _child()
        stream.close()  # type: ignore[attr-defined]
    assert not Path(f"/proc/{pid}").exists()
    assert archive.fetched() < 8
    assert threading.active_count() >= 1
