"""A MONAI bundle reads files as the sites do: what it shows the network is held against intake and cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dicom_files import radiograph, save
from fedai_site import intake
from run_folders import write_run
from studies import small_study

from fedai.bundle_images import to_network
from fedai.bundles import Bundle, read_predictions, run_bundle, write
from fedai.exports import load_scorer
from fedai.preparation import prepare

pytest.importorskip("ignite")
Image = pytest.importorskip("PIL.Image")

ALIKE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("registry") / "small-1", small_study())


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "small"
    write(Bundle(folder, "federated", *load_scorer(folder, "federated")), out)
    return out


def scores_of(folder: Path, image: np.ndarray) -> list[float]:
    """What the run's network gives for an image as a site sees it."""
    study, scorer = load_scorer(folder, "federated")
    shown = prepare(image.astype(np.float32), study.preprocessing.image_size, 1.0, 99.0)
    with torch.inference_mode():
        return list(map(float, scorer(torch.from_numpy(shown[None, None]))[0]))


def test_monai_runs_the_bundle_on_png_npy_and_dicom_files_and_gives_the_networks_scores(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    rng, images = np.random.default_rng(3), tmp_path / "images"
    images.mkdir()
    grey = rng.integers(0, 256, (50, 31), np.uint8)
    colour = rng.integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(grey).save(images / "grey.png")
    Image.fromarray(colour).save(images / "colour.png")
    np.save(images / "array.npy", rng.normal(0, 400, (33, 70)).astype(np.float32))
    np.save(images / "flat.npy", np.full((20, 30), 5, np.int16))
    for number, (name, changes) in enumerate(DICOM.items()):
        save(radiograph(number, **changes), images / name)
    run_bundle(bundle, images, tmp_path / "scores")
    found = read_predictions(tmp_path / "scores" / "predictions.csv")
    seen = {"grey.png": grey, "colour.png": colour @ np.array([0.299, 0.587, 0.114], np.float32)}
    seen |= {name: np.load(images / name) for name in ("array.npy", "flat.npy")}
    seen |= {name: intake.pixels(images / name) for name in DICOM}
    assert set(found) == set(seen)
    for name, image in seen.items():
        assert found[name] == pytest.approx(scores_of(folder, image), abs=ALIKE), name
    assert len({tuple(scores) for scores in found.values()}) == len(found)


DICOM: dict[str, dict[str, Any]] = {
    "plain.dcm": {},
    "inverted.dcm": {"PhotometricInterpretation": "MONOCHROME1"},
    "window.dcm": {"WindowCenter": 2000, "WindowWidth": 1500},
    "ct.dcm": {"Modality": "CT", "RescaleSlope": 2, "RescaleIntercept": -1024},
}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"PixelPaddingValue": 0}, "padding"),
        ({"WindowCenter": 100, "WindowWidth": 60, "VOILUTFunction": "SIGMOID"}, "a sigmoid window"),
    ],
)
def test_a_dicom_file_that_cannot_be_shown_as_sites_show_it_is_refused(
    changes: dict[str, Any], what: str, tmp_path: Path
) -> None:
    from monai.data import PydicomReader
    from monai.transforms import EnsureChannelFirst, LoadImage

    save(radiograph(**changes), tmp_path / "one.dcm")
    load = LoadImage(reader=PydicomReader(swap_ij=False, prune_metadata=False))
    with pytest.raises(ValueError, match=what):
        to_network(EnsureChannelFirst()(load(tmp_path / "one.dcm")), (16, 16), 1.0, 99.0)


def test_a_picture_whose_values_are_numbers_of_colours_is_refused(tmp_path: Path) -> None:
    from monai.data import PILReader
    from monai.transforms import EnsureChannelFirst, LoadImage

    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8))
    grey.convert("P").save(tmp_path / "one.png")
    image = EnsureChannelFirst()(LoadImage(reader=PILReader(reverse_indexing=False))(tmp_path / "one.png"))
    with pytest.raises(ValueError, match="mode P is not read"):
        to_network(image, (16, 16), 1.0, 99.0)


def test_what_is_known_of_a_patient_ends_where_the_image_is_read(tmp_path: Path) -> None:
    from monai.data import PydicomReader
    from monai.transforms import EnsureChannelFirst, LoadImage

    save(radiograph(PatientName="Hong^Gildong"), tmp_path / "one.dcm")
    image = LoadImage(reader=PydicomReader(swap_ij=False, prune_metadata=False))(tmp_path / "one.dcm")
    assert "Gildong" in str(image.meta)
    shown = to_network(EnsureChannelFirst()(image), (16, 16), 1.0, 99.0)
    assert set(shown.meta) <= {"filename_or_obj", "affine", "space"}
    assert "Gildong" not in str(shown.meta)
