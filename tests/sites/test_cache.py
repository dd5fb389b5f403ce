from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dicom_files import radiograph, save
from fedai_site import cache, intake
from fedai_site.adding import add_data
from fedai_site.catalogue import Catalogue
from fedai_site.cohort import Case
from fedai_site.deidentify import create_secret
from numpy.typing import NDArray

from fedai.errors import DataError

SETTINGS: Any = SimpleNamespace(image_size=(8, 8), lower_percentile=1.0, upper_percentile=99.0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    create_secret(home / "keys" / "pseudonym.key")
    for number in range(4):
        save(radiograph(number, f"P{number}"), tmp_path / "export" / f"{number}.dcm")
    add_data(home, tmp_path / "export", None)
    return home


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every DICOM file that is decoded."""
    seen: list[bytes] = []
    decode = intake.decode

    def record(data: bytes) -> NDArray[np.float32]:
        seen.append(data)
        return decode(data)

    monkeypatch.setattr(intake, "decode", record)
    return seen


def cases(home: Path) -> list[Case]:
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        return [
            Case(entry.id, entry.patient, 0, home / entry.path, entry.sha256)
            for entry in catalogue.labelled()
        ]


def test_the_second_epoch_decodes_nothing(home: Path, opened: list[bytes]) -> None:
    first = cache.load(home, cases(home), SETTINGS)
    assert len(opened) == 4
    second = cache.load(home, cases(home)[::-1], SETTINGS)
    assert len(opened) == 4
    np.testing.assert_array_equal(first, second[::-1])
    assert first.shape == (4, 1, 8, 8)
    assert first.dtype == np.uint8


def test_another_preprocessing_is_another_image(home: Path, opened: list[bytes]) -> None:
    cache.load(home, cases(home), SETTINGS)
    other: Any = SimpleNamespace(image_size=(8, 8), lower_percentile=20.0, upper_percentile=60.0)
    assert not np.array_equal(cache.load(home, cases(home), other), cache.load(home, cases(home), SETTINGS))
    assert len(opened) == 8


def test_a_cached_image_that_is_torn_is_made_again(home: Path, opened: list[bytes]) -> None:
    before = cache.load(home, cases(home), SETTINGS)
    for path, size in zip(sorted((home / "cache").rglob("*.npy")), (0, 10, 100, 140), strict=True):
        os.truncate(path, size)
    np.testing.assert_array_equal(cache.load(home, cases(home), SETTINGS), before)
    assert len(opened) == 8


def test_a_clean_file_that_changed_is_refused_until_it_is_added_again(home: Path, tmp_path: Path) -> None:
    before = cache.load(home, cases(home), SETTINGS)
    path = cases(home)[0].path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="isn't the one that was catalogued"):
        cache.load(home, cases(home), SETTINGS)
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        cache.load(home, cases(home), SETTINGS)
    add_data(home, tmp_path / "export", None)
    np.testing.assert_array_equal(cache.load(home, cases(home), SETTINGS), before)
