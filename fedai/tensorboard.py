"""A run's events as TensorBoard's event files: one folder for the run, one for each site in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedai.errors import ConfigError
from fedai.events import CheckpointChosen, Event, Judged, RoundClosed

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardFiles:
    """Writes what it hears below `folder`/RUN: a curve over rounds for each number of each site (the same
    names, so that sites lie over each other), and the judgement at the last round.

    Raises ConfigError where tensorboard isn't installed, or the run's folder is there already: its points
    would be there twice.
    """

    def __init__(self, folder: Path, run: str) -> None:
        require_tensorboard()
        self.folder = folder / run
        if self.folder.exists():
            raise ConfigError(f"{self.folder} is there already", hint="give a new folder, or delete that one")
        self.writers: dict[str, SummaryWriter] = {}
        self.last_round = 0

    def hear(self, event: Event) -> None:
        if isinstance(event, RoundClosed):
            self.last_round = event.number
            counts = {"answered": len(event.answered), "late": len(event.late), "refused": len(event.refused)}
            self._write("", "round", {"seconds": event.seconds, **counts})
            for site, numbers in event.numbers.items():
                self._write(site, "round", numbers)
        elif isinstance(event, CheckpointChosen):
            self._write("", "chosen", {"round": event.round, event.by: event.value})
        elif isinstance(event, Judged):
            for model, places in event.numbers.items():
                for place, numbers in places.items():
                    self._write(place, f"test/{model}", numbers)

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()

    def _write(self, place: str, group: str, numbers: Mapping[str, float]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if place not in self.writers:
            self.writers[place] = SummaryWriter(str(self.folder / place))
        for name, value in numbers.items():
            self.writers[place].add_scalar(f"{group}/{name}", value, self.last_round)
        self.writers[place].flush()


def require_tensorboard() -> None:
    """Raise ConfigError where tensorboard isn't installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        hint = "pip install 'fedai-radiology[tensorboard]'"
        raise ConfigError("tensorboard is not installed", hint=hint) from None
