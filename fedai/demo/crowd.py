"""Any number of invented sites over one pool of invented radiographs, for simulations.

The pool is drawn once; each site takes patients of its own choice from it, with a prevalence and a scanner's
contrast of its own, drawn anew from its seed whenever it is visited. So nothing is held for a site, and two
sites may show one patient on two scanners.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedai.demo.phantom import Disease, Scanner, draw_anatomy, draw_nodules, radiograph
from fedai.errors import ConfigError
from fedai.local import Cases
from fedai.study import Study
from fedai.training import seed_of

POOL_PATIENTS = 240  # 80 of them are shown for tests alone
TEST_SHARE = 3
LARGE = Disease(radius=(0.11, 0.17), contrast=(0.35, 0.6))  # to be learnt in seconds from small pictures


@dataclass(frozen=True)
class InventedSite:
    """`cases` images in each split, from the pool in `pool` (.npz)."""

    name: str
    pool: Path
    cases_each: int
    classes: int
    seed: int

    def cases(self, split: str) -> Cases:
        """The same at every visit."""
        images, labels = _pool(self.pool)
        rng = np.random.default_rng(seed_of(self.seed, self.name, "scanner"))
        prevalence, gamma = rng.uniform(0.3, 0.7), rng.uniform(0.7, 1.4)
        rng = np.random.default_rng(seed_of(self.seed, self.name, split))
        shares = np.array([1 - prevalence, *[prevalence / (self.classes - 1)] * (self.classes - 1)])
        held_out = np.arange(len(labels)) % TEST_SHARE == 0
        of_split = np.flatnonzero(held_out if split == "test" else ~held_out)
        wanted = rng.choice(self.classes, self.cases_each, p=shares)
        wanted[: self.classes] = np.arange(self.classes)  # one of each, so that an AUROC is defined
        chosen = np.array([rng.choice(of_split[labels[of_split] == label]) for label in wanted])
        curve = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
        return Cases(curve[images[chosen]], labels[chosen], tuple(f"p{number}" for number in chosen))

    def may_go_on(self) -> bool:
        return True

    def told_training_cases(self) -> int:
        return self.cases_each


@lru_cache(maxsize=1)
def _pool(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with np.load(path, allow_pickle=False) as kept:
        return kept["images"], kept["labels"]


def invent_sites(study: Study, number: int, cases: int, folder: Path) -> tuple[Study, list[InventedSite]]:
    """`number` sites with `cases` images in each split, and the study that names them. The pool is drawn
    into `folder`, unless it is there. Raises ConfigError where a site's cases can't hold one of each class.
    """
    if study.task.kind != "classification":
        raise ConfigError("invented sites have classes, no outlines", hint="simulate over homes: --home")
    classes = len(study.task.classes)
    if cases < classes:
        raise ConfigError(f"{cases} cases can't hold one of each of {classes} classes", hint="raise --cases")
    folder.mkdir(parents=True, exist_ok=True)
    (rows, columns), seed = study.preprocessing.image_size, study.training.seed
    path = folder / f"pool-{classes}-{rows}x{columns}-{seed}.npz"
    if not path.exists():
        images, labels = draw_pool(classes, (rows, columns), seed, POOL_PATIENTS)
        np.savez(path, images=images, labels=labels)
    sites = [InventedSite(f"site-{n:04d}", path, cases, classes, seed) for n in range(1, number + 1)]
    return study.model_copy(update={"sites": tuple(site.name for site in sites)}), sites


def draw_pool(
    classes: int, size: tuple[int, int], seed: int, patients: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """uint8 [patients, 1, rows, columns] and int64 [patients]: a chest with as many nodules as its class's
    number.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(patients, dtype=np.int64) // TEST_SHARE % classes
    return np.stack([_draw(rng, int(label), size) for label in labels])[:, None], labels


def _draw(rng: np.random.Generator, nodules: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    chest = draw_anatomy(rng)
    return shrink(radiograph(rng, Scanner(), draw_nodules(rng, chest, nodules, (LARGE,)), chest), size)


def shrink(picture: NDArray[np.uint16], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The mean over areas, from the first to the 99th percentile as 0 to 255."""
    import torch

    whole = torch.from_numpy(picture.astype(np.float32))[None, None]
    small = torch.nn.functional.adaptive_avg_pool2d(whole, size)[0, 0].numpy()
    low, high = np.percentile(small, (1, 99))
    scaled: NDArray[np.uint8] = np.rint(np.clip((small - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return scaled
