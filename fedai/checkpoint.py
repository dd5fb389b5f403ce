"""Checkpoints on disk: safetensors with the network's own tensor names, and a manifest that says where they
come from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedai.errors import ConfigError
from fedai.weights import PARTS, Entry, Layout, Weights

STATE = "strategy.safetensors"
DTYPES = {"parameters": np.float32, "buffers": np.float32, "counters": np.int64}


def save_checkpoint(folder: Path, weights: Weights, layout: Layout, **facts: Any) -> str:
    """Write weights.safetensors and manifest.json; gives the SHA-256 of the former.

    `facts` go into the manifest: study hash, round, sites, cases, parent (the SHA-256 of the checkpoint
    before).
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = save(_tensors(weights, layout))
    digest = hashlib.sha256(content).hexdigest()
    manifest = {"sha256": digest, "layout": layout.sha256, **facts}
    write_whole(folder / "weights.safetensors", content)
    write_whole(folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode())
    return digest


def save_state(folder: Path, state: Mapping[str, npt.NDArray[np.float64]]) -> None:
    """Write what a strategy remembers beside a checkpoint; nothing where it remembers nothing."""
    if state:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / STATE, save({name: np.ascontiguousarray(a) for name, a in state.items()}))


def load_state(folder: Path) -> dict[str, npt.NDArray[np.float64]]:
    """What `save_state` wrote, or nothing. Raises ConfigError where it can't be read."""
    try:
        return dict(load((folder / STATE).read_bytes())) if (folder / STATE).exists() else {}
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(f"can't read {folder / STATE}: {error}", hint="start the study again") from None


def checkpoint_sha256(folder: Path) -> str:
    """The SHA-256 of weights.safetensors as it is. Raises ConfigError where there is none."""
    try:
        return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"can't read {folder}: {error.strerror}", hint="check the path") from None


def load_checkpoint(path: Path, layout: Layout) -> Weights:
    """Read weights.safetensors (or the folder that holds it) for `layout`.

    Raises ConfigError where the file isn't there, isn't safetensors, is of another network or holds NaN.
    """
    path = path / "weights.safetensors" if path.is_dir() else path
    try:
        tensors = load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}", hint="check the path") from None
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is not a safetensors file: {error}") from None
    entries = [entry for part in PARTS for entry in getattr(layout, part)]
    found = {name: array.shape for name, array in tensors.items()}
    if found != {entry.name: entry.shape for entry in entries}:
        raise ConfigError(f"{path} is of another network", hint="was it trained with this study?")
    weights = Weights.of({part: _flat(tensors, getattr(layout, part), DTYPES[part]) for part in PARTS})
    if not weights.is_finite():
        raise ConfigError(f"{path} holds NaN or infinity", hint="its training diverged; take another")
    return weights


def _flat(tensors: dict[str, Any], entries: Sequence[Entry], dtype: type) -> npt.NDArray[Any]:
    arrays = [tensors[entry.name].ravel().astype(dtype) for entry in entries]
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype)


def _tensors(weights: Weights, layout: Layout) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for part, flat in weights.arrays().items():
        place = 0
        for entry in getattr(layout, part):
            tensors[entry.name] = flat[place : place + entry.size].reshape(entry.shape).copy()
            place += entry.size
    return tensors


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or as it was before, whatever happens meanwhile."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)  # on a full disk it would hold the last of it
        raise
