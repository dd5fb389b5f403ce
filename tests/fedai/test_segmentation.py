from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from studies import SMALL, merged, small_study

from fedai.errors import ConfigError
from fedai.evaluation import case_losses, outline
from fedai.local import Cases
from fedai.outline_score import OutlineScore
from fedai.simulate import simulate
from fedai.study import Segmentation, Study, read_study
from fedai.tasks.classification import build_network
from fedai.tasks.segmentation import augment_both, build_loss
from fedai.training import train
from fedai.yamlfile import FileProblems, parse

UNET = {"name": "UNet", "channels": [8, 16], "strides": [2], "num_res_units": 1}
OUTLINES: dict[str, Any] = copy.deepcopy(SMALL) | {
    "task": {"kind": "segmentation", "structures": ["lesion"], "tolerance_mm": 1.0},
    "network": UNET,
    "training": {
        "rounds": 2, "local_epochs": 3, "batch_size": 4, "seed": 7,
        "loss": {"name": "DiceCE"}, "optimizer": {"name": "AdamW", "learning_rate": 0.01},
    },
}  # fmt: skip


def outline_study(**changes: Any) -> Study:
    return Study.model_validate(merged(OUTLINES, changes))


def draw_masks(cases: int, seed: int = 0, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Noise uint8 [cases, 1, size, size] with a bright rectangle, and the masks of these."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (cases, 1, size, size), np.uint8)
    masks = np.zeros((cases, size, size), np.uint8)
    for n in range(cases):
        top, left = rng.integers(1, size - 7, 2)
        masks[n, top : top + rng.integers(3, 7), left : left + rng.integers(3, 7)] = 1
    images[:, 0][masks == 1] += 130
    return images, masks


# ---------------------------------------------------------------- the study


def problems(changes: dict[str, Any], base: dict[str, Any] = OUTLINES) -> list[str]:
    import yaml

    text = yaml.safe_dump(merged(base, changes), sort_keys=False)
    with pytest.raises(FileProblems) as caught:
        parse(text.encode(), Study, "s.yaml")
    return [problem.show("s.yaml") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("changes", "base", "told"),
    [
        ({"network": {"name": "DenseNet121"}}, OUTLINES, "network.name: DenseNet121 is not for segmentation"),
        ({"network": UNET}, SMALL, "network.name: UNet is not for classification"),
        (
            {"training": {"loss": {"name": "Focal"}}},
            OUTLINES,
            "training.loss.name: the loss Focal is not for",
        ),
        ({"training": {"loss": {"name": "Dice"}}}, SMALL, "training.loss.name: the loss Dice is not for"),
        ({"judgement": {"margin": 0.05}}, OUTLINES, "judgement.margin: margin is of scores"),
        ({"judgement": {"subgroups": ["sex"]}}, OUTLINES, "judgement.subgroups: subgroups is of scores"),
        ({"task": {"kind": "detection"}}, OUTLINES, "task.kind: there is no 'detection' here"),
        ({"task": {"structures": ["a b"]}}, OUTLINES, "task.structures[0]: string should match"),
        ({"task": {"structures": ["a", "a"]}}, OUTLINES, "task.structures: named twice: a"),
        (
            {"task": {"structure": ["a"]}},
            OUTLINES,
            "task.structure: no such key (did you mean 'structures'?)",
        ),
        ({"network": {"strides": [2, 2]}}, OUTLINES, "network: 2 channels need 1 strides"),
    ],
)
def test_what_does_not_fit_the_task_is_refused_with_its_place(
    changes: dict[str, Any], base: dict[str, Any], told: str
) -> None:
    found = problems(changes, base)
    assert any(told in line and line.startswith("s.yaml:") for line in found), found


def test_a_study_that_does_not_say_its_kind_is_a_classification_and_keeps_its_hash() -> None:
    plain = small_study()
    assert plain.sha256 == small_study(task={"kind": "classification"}).sha256
    assert plain.sha256 == "86ed3af49d0bd03251e1ae7d00dceb585024b51342bff966048e1ee739c6b4a2"


def test_the_study_under_configs_outlines() -> None:
    study = read_study(Path(__file__).parents[2] / "configs" / "studies" / "cxr-lesion.yaml")
    assert isinstance(study.task, Segmentation)
    assert build_network(study)(torch.zeros(1, 1, 128, 128)).shape == (1, 2, 128, 128)


def test_images_that_the_network_cannot_halve_are_refused() -> None:
    with pytest.raises(ConfigError, match="not one logit per structure and pixel"):
        build_network(outline_study(preprocessing={"image_size": [17, 16]}))


# ---------------------------------------------------------------- training


def test_the_loss_is_monais_over_masks() -> None:
    from monai.losses import DiceCELoss

    logits = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    masks = (logits[:, 1] > 0.3).long()
    loss = outline_study().training.loss
    ours = build_loss(loss, [1, 1], torch.device("cpu"))(logits, masks)
    theirs = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
    assert torch.allclose(ours, theirs(logits, masks[:, None]))


def test_an_image_and_its_mask_are_moved_by_the_same_draws() -> None:
    moves = [
        {"name": "RandFlip"}, {"name": "RandScaleIntensity", "brightness_fraction": 0.5},
        {"name": "RandAffine", "rotation_degrees": 90, "zoom_fraction": 0.2, "shift_fraction": 0.2},
        {"name": "RandFlip", "axis": "vertical"},
    ]  # fmt: skip
    transforms = outline_study(training={"augmentation": moves}).training.augmentation
    masks = torch.zeros(6, 32, 32, dtype=torch.int64)
    masks[:, 5:14, 8:25] = 2
    batch = masks[:, None].float() * 10
    moved, labels = augment_both(batch, masks, transforms, torch.Generator().manual_seed(3))
    plain = [one for one in transforms if one.name != "RandScaleIntensity"]
    again, same = augment_both(batch, masks, plain, torch.Generator().manual_seed(3))
    assert labels.unique().tolist() == [0, 2]
    assert not torch.equal(labels, masks)
    assert (same != masks).any()
    assert ((again[:, 0] > 10) == (same == 2)).float().mean() > 0.97, "they differ at edges alone"
    assert moved.shape == batch.shape


def test_a_small_unet_learns_bright_rectangles_and_the_same_seed_gives_the_same_bits() -> None:
    study = outline_study()
    images, masks = draw_masks(24)
    networks = [build_network(study) for _ in range(2)]
    for network in networks:
        train(network, images, masks, study.training, classes=study.task.outputs, epochs=12, seed=1)
    first, second = (list(network.state_dict().values()) for network in networks)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    new_images, new_masks = draw_masks(10, seed=5)
    outlines, losses = outline(networks[0], new_images, new_masks)
    assert np.array_equal(losses, case_losses(networks[0], new_images, new_masks))
    overlap = 2 * ((outlines == 1) & (new_masks == 1)).sum() / ((outlines == 1).sum() + new_masks.sum())
    assert overlap > 0.8


class Drawn:
    """A site with rectangles of pixels of half a millimetre."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed

    def cases(self, split: str) -> Cases:
        images, masks = draw_masks(8, seed=self.seed + 100 * (split == "test"))
        return Cases(images, masks, tuple(f"p{number}" for number in range(8)), np.full((8, 2), 0.5))

    def may_go_on(self) -> bool:
        return True


@pytest.mark.parametrize("strategy", ["FedAvg", "qFedAvg", "Ditto"])
def test_a_simulation_trains_and_scores_outlines(tmp_path: Path, strategy: str) -> None:
    sites = [Drawn(name, seed) for seed, name in enumerate(("north", "east", "south"))]
    done = simulate(outline_study(strategy={"name": strategy}), sites, tmp_path)
    assert isinstance(done.pooled, OutlineScore)
    assert done.pooled.found.sum() == 24
    assert done.rounds[-1].train_loss < done.rounds[0].train_loss
    assert set(done.scores) == {"north", "east", "south"}
    pooled = np.mean([done.scores[name] for name in done.scores])
    assert done.pooled.means[0, 0] == pytest.approx(pooled)
