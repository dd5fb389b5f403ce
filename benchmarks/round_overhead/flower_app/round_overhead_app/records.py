"""The network's weights as Flower's records: one flat array."""

from flwr.app import Array, ArrayRecord
from torch import nn

from round_overhead_app import work


def pack(network: nn.Module) -> ArrayRecord:
    """All values of the state as one array: many small ones cost Flower far more (a whole object each)."""
    return ArrayRecord({"weights": Array(work.flatten(network))})


def unpack(arrays: ArrayRecord, network: nn.Module) -> nn.Module:
    """The reverse of `pack`, into `network`."""
    return work.restore(arrays["weights"].numpy(), network)
