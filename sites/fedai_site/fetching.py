"""The other end of dicomweb.py: starts it, and gives what it has put into the inbox to whoever cleans it.

The process that cleans holds the pseudonyms' key and opens no connection; the one that connects holds no key.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedai.errors import ConfigError, DataError
from fedai_site.inbox import open_inbox
from fedai_site.pacs import Dicomweb

OF_STUDIES = ("AccessionNumber", "ModalitiesInStudy", "PatientID", "StudyDate", "StudyDescription",
              "StudyInstanceUID")  # fmt: skip
OF_SERIES = ("BodyPartExamined", "Modality", "SeriesDescription", "SeriesInstanceUID")
FAILED = "not-given-out"
NAME = re.compile(r"[0-9a-f]{64}\.dcm")
MODULE = "fedai_site.dicomweb"


def service(services: Mapping[str, Dicomweb], wanted: str) -> Dicomweb:
    """The DICOMweb service that site.yaml names so, or at that URL. Raises ConfigError for any other."""
    for name, one in services.items():
        if wanted in (name, one.url, f"{one.url}/"):
            return one
    known = ", ".join(services) or "none"
    raise ConfigError(
        f"--dicomweb: site.yaml names no DICOMweb service {wanted!r} (it names: {known})",
        hint="nothing else is contacted; put it under `dicomweb:` in the home's site.yaml",
    )


def filters(given: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """(of studies, of series) from NAME=VALUE each; DICOMweb's own matching: `*`, ranges of dates.

    Raises ConfigError with all problems, without the values.
    """
    pairs = [one.partition("=") for one in given]
    unknown = [name for name, _, value in pairs if name not in OF_STUDIES + OF_SERIES or not value]
    if unknown:
        told = ", ".join(name if name.isalpha() else "one without a name" for name in unknown)
        hint = f"NAME=VALUE with one of {', '.join(sorted(OF_STUDIES + OF_SERIES))}"
        raise ConfigError(f"--filter: not a filter, or without a value: {told}", hint=hint)
    chosen = {name: value for name, _, value in pairs}
    if len(chosen) < len(pairs):
        raise ConfigError("--filter: one is given twice", hint="one value for each")
    of_studies = {name: value for name, value in chosen.items() if name in OF_STUDIES}
    return of_studies, {name: value for name, value in chosen.items() if name in OF_SERIES}


@dataclass
class Fetching:
    """One question to a DICOMweb service, and how it went: how many objects came, how many weren't given out,
    and what the `problem` is, '' once all is here.
    """

    home: Path
    archive: Dicomweb
    given: Sequence[str] = ()
    new_only: bool = False
    kept: int = 0
    failed: int = 0
    problem: str = "the process that fetches ended early"
    _order: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_installed():
            hint = "pip install 'fedai-radiology[dicomweb]'"
            raise ConfigError("dicomweb-client is not installed", hint=hint)
        of_studies, of_series = filters(self.given)
        files = {name: str(self.home / path) for name, path in _files(self.archive)}
        self._order = {"inbox": str(open_inbox(self.home).resolve()), "url": self.archive.url, **files,
                       "studies": of_studies, "series": of_series, "new_only": self.new_only}  # fmt: skip

    def coming(self) -> Iterator[Path]:
        """Start to fetch, and give the path of each object that is in the inbox.

        What the archive doesn't give out is a path where nothing is, so that it is told with the quarantine.
        """
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert child.stdin
        assert child.stdout
        try:
            child.stdin.write(json.dumps(self._order) + "\n")
            child.stdin.close()
            for line in child.stdout:
                yield from self._heard(line.rstrip("\n"))
        except BrokenPipeError:
            pass
        finally:
            child.stdout.close()
            child.terminate()
            child.wait()

    def _heard(self, line: str) -> Iterator[Path]:
        what, _, told = line.partition(" ")
        folder = Path(self._order["inbox"])
        if what == "kept" and NAME.fullmatch(told):
            self.kept += 1
            yield folder / told[:2] / told
        elif what == "failed":
            self.failed += 1
            yield folder / FAILED / re.sub(r"[^0-9.a-z]", "", told)
        elif what in ("finished", "stopped"):
            self.problem = told

    def check(self) -> None:
        """Raises DataError where the question wasn't answered whole."""
        if self.problem:
            counts = f"{self.kept} objects came, {self.failed} were not given out"
            raise DataError(
                f"not all was fetched: {self.problem}; {counts}",
                hint="what came is in the catalogue or in quarantine; run it again: it goes on from here",
            )


def _files(archive: Dicomweb) -> Iterator[tuple[str, Path]]:
    for name in ("ca", "certificate", "key"):
        if path := getattr(archive, name):
            yield name, path


def _is_installed() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version("dicomweb-client"))
    except PackageNotFoundError:
        return False
