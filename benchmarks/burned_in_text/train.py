"""Trains the detector of burned-in text: `python -m benchmarks.burned_in_text.train --out
weights.safetensors`.

The pictures are generated from --seed, so the same machine and versions give the same weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import torch
from fedai_site.deidentify.pixels.network import TextNetwork
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.burned_in_text.fonts import Fonts
from benchmarks.burned_in_text.real import by_file, pictures
from benchmarks.burned_in_text.samples import UNKNOWN, sample

BATCH = 16
HARD_SHARE = 0.05
"""Share of the cells without text, those with the highest loss, that count as much as all the others."""
AVERAGE = 0.998
"""Decay of the running average of the weights, which is what is kept."""


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Generated pictures, (1, 256, 256), and their cells, (1, 64, 64)."""

    def __init__(self, first: int, count: int, folders: tuple[Path, ...], equal: float) -> None:
        self.first, self.count, self.equal = first, count, equal
        self.real = by_file(pictures("train", folders))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        made = sample(self.first + number, self.real, Fonts("train"), self.equal)
        return torch.from_numpy(made.picture)[None], torch.from_numpy(made.cells)[None]


def loss_of(logits: Tensor, cells: Tensor) -> Tensor:
    """Cross entropy over text, over no text, and over the hardest cells without text; and the Dice loss."""
    text, empty = cells == 1, cells == 0
    each = nn.functional.binary_cross_entropy_with_logits(logits, text.float(), reduction="none")
    hard = each[empty].topk(max(1, int(empty.sum() * HARD_SHARE))).values.mean()
    known = cells != UNKNOWN
    chance = torch.sigmoid(logits) * known
    dice = 1 - (2 * (chance * text).sum() + 1) / (chance.sum() + text.sum() + 1)
    wanted = each[text].mean() if text.any() else each.sum() * 0
    return wanted + hard + each[empty].mean() + dice


def batches(data: Pictures) -> Iterator[tuple[Tensor, Tensor]]:
    """In order, made in one process beside this one."""
    yield from DataLoader(data, BATCH, num_workers=1, prefetch_factor=8)


def train(network: TextNetwork, data: Pictures, rate: float, stop: int, out: Path) -> None:
    """Train over the data once, or for `stop` steps; write the averaged weights as float16 now and then."""
    steps = len(data) // BATCH
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, steps + 1, pct_start=0.08, final_div_factor=200
    )
    average = torch.optim.swa_utils.AveragedModel(network, avg_fn=_followed, use_buffers=True)
    parts = {"network": network, "average": average, "optimiser": optimiser, "schedule": schedule}
    done = resume(parts, data, out)
    started, running = time.monotonic(), 0.0
    for step, (pictures_, cells) in enumerate(batches(data), done + 1):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(pictures_.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), cells)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
        running += (loss.item() - running) * (0.02 if step - done > 50 else 1 / (step - done))
        if step % 100 == 0:
            print(f"{step}/{steps} loss {running:.3f} {time.monotonic() - started:.0f} s", flush=True)
        if step % 250 == 0 or step == steps:
            save(average.module, out)
        if step % 50 == 0:
            torch.save(
                {name: part.state_dict() for name, part in parts.items()} | {"step": step}, beside(out)
            )
        if step == stop:
            break
    beside(out).unlink(missing_ok=True)


def beside(out: Path) -> Path:
    """Where the state of an interrupted training lies."""
    return out.with_suffix(".state")


def resume(parts: dict[str, Any], data: Pictures, out: Path) -> int:
    """Go on with an interrupted training, if there is one. Returns the steps already taken."""
    if not beside(out).is_file():
        return 0
    state = torch.load(beside(out), weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    taken = int(state["step"])
    data.first, data.count = data.first + taken * BATCH, data.count - taken * BATCH
    return taken


def _followed(average: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
    """The running average, which follows quickly at first."""
    return average + (now - average) * (1 - min(AVERAGE, (1 + int(count)) / (10 + int(count))))


def save(network: nn.Module, out: Path) -> None:
    """Write the weights as float16."""
    save_file(
        {name: value.half().contiguous() for name, value in network.state_dict().items() if value.dim()},
        str(out),
    )


def main() -> int:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--folders", type=Path, nargs="*", default=[], help="with deid-data and mricron-data unpacked"
    )
    parser.add_argument("--pictures", type=int, default=32000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--stop", type=int, default=0, help="after so many steps, a multiple of 250")
    parser.add_argument(
        "--equal", type=float, default=0.0, help="share of pictures with equalised grey levels"
    )
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    site_packages = Path(pydicom.__file__).parents[1]
    folders = (site_packages / "pydicom", site_packages / "data_store", *options.folders)
    network = TextNetwork().to(memory_format=torch.channels_last)
    if options.start:
        network.load_state_dict(
            {name: value.float() for name, value in load_file(options.start).items()}, strict=False
        )
    data = Pictures(options.seed * 10_000_000, options.pictures, folders, options.equal)
    print(f"{len(data.real)} real files, {sum(map(len, data.real))} pictures", flush=True)
    train(network, data, options.rate, options.stop, options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
