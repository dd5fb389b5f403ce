"""A network's state as three flat arrays and one layout.

Parameters (float32) are averaged; buffers (float32, e.g. running means) and counters (int64, e.g.
BatchNorm's `num_batches_tracked`) are kept apart, because each needs a rule of its own. One flat array
instead of hundreds is also what makes a round fast: Flower moves every array as objects of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedai.errors import TrainingError

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Entry:
    """One tensor of a network: its name, shape and torch dtype (such as `float32`)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Names, shapes and dtypes in the order in which tensors lie in the flat arrays."""

    parameters: tuple[Entry, ...]
    buffers: tuple[Entry, ...]
    counters: tuple[Entry, ...]

    def to_json(self) -> str:
        parts = {part: [[e.name, list(e.shape), e.dtype] for e in getattr(self, part)] for part in PARTS}
        return json.dumps(parts, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Layout:
        parts: dict[str, list[Any]] = json.loads(text)
        return cls(
            **{p: tuple(Entry(name, tuple(shape), dtype) for name, shape, dtype in parts[p]) for p in PARTS}
        )

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def sizes(self) -> dict[str, int]:
        """Number of values in each flat array."""
        return {part: sum(entry.size for entry in getattr(self, part)) for part in PARTS}


PARTS = ("parameters", "buffers", "counters")


@dataclass(frozen=True)
class Weights:
    """Flat state: parameters float32 [P], buffers float32 [B], counters int64 [K]."""

    parameters: Floats
    buffers: Floats
    counters: Integers

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {part: getattr(self, part) for part in PARTS}

    @classmethod
    def of(cls, arrays: dict[str, npt.NDArray[Any]]) -> Weights:
        return cls(*(arrays[part] for part in PARTS))

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.parameters).all() and np.isfinite(self.buffers).all())


def layout_of(network: torch.nn.Module, private: Collection[str] = ()) -> Layout:
    """The layout of a network: trainable and frozen parameters first, then persistent buffers by kind;
    without the names that are `private` to a site.
    """
    kept = set(network.state_dict().keys()) - set(private)
    buffers = [(name, tensor) for name, tensor in network.named_buffers() if name in kept]
    return Layout(
        parameters=tuple(_entry(name, tensor) for name, tensor in network.named_parameters() if name in kept),
        buffers=tuple(_entry(name, tensor) for name, tensor in buffers if tensor.is_floating_point()),
        counters=tuple(_entry(name, tensor) for name, tensor in buffers if not tensor.is_floating_point()),
    )


def _entry(name: str, tensor: torch.Tensor) -> Entry:
    return Entry(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def pack(network: torch.nn.Module, layout: Layout) -> Weights:
    """Copy a network's state into flat arrays."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}

    def flat(entries: tuple[Entry, ...], dtype: type) -> npt.NDArray[Any]:
        parts = [tensors[entry.name].detach().cpu().numpy().ravel() for entry in entries]
        return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)

    return Weights(
        flat(layout.parameters, np.float32), flat(layout.buffers, np.float32), flat(layout.counters, np.int64)
    )


def unpack(weights: Weights, network: torch.nn.Module, layout: Layout) -> None:
    """Copy flat arrays into a network. Raises TrainingError where sizes differ from the layout."""
    import torch

    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad():
        for part, flat in weights.arrays().items():
            if flat.shape != (layout.sizes()[part],):
                raise TrainingError(f"{part} have shape {flat.shape}, expected ({layout.sizes()[part]},)")
            place = 0
            for entry in getattr(layout, part):
                values = np.array(flat[place : place + entry.size]).reshape(entry.shape)
                tensors[entry.name].copy_(torch.from_numpy(values))
                place += entry.size


def difference(after: Weights, before: Weights) -> Weights:
    """What a site sends: the change of the parameters; buffers and counters as they are."""
    return Weights(after.parameters - before.parameters, after.buffers, after.counters)


def applied(start: Weights, update: Weights) -> Weights:
    """Weights after an update: parameters moved by it, buffers and counters taken from it."""
    return Weights(start.parameters + update.parameters, update.buffers, update.counters)
