"""Runs in pfl's environment: pfl's simulator over the same sites, network and steps; prints JSON.

`python pfl_side.py DATA.npz ROUNDS BATCH RATE NETWORK`, where DATA holds images uint8 [sites, cases, 1, rows,
columns] and labels [sites, cases], NETWORK the arguments of MONAI's DenseNet as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
import torch
from monai.networks.nets import DenseNet
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.model.pytorch import PyTorchModel


class Network(DenseNet):
    """With the loss that pfl asks for; images are normalised here, as our side does."""

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.train()
        x = images.float()
        mean, std = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True, correction=0)
        return torch.nn.functional.cross_entropy(self((x - mean) / std.clamp_min(1.0)), labels)

    def metrics(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        return {}


def main() -> None:
    """Every site in every round; no evaluation."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    path, rounds, batch, rate, arguments = sys.argv[1:6]
    with np.load(path) as kept:
        images, labels = kept["images"], kept["labels"]
    users = list(range(len(images)))

    def dataset_of(user: int) -> Dataset:
        return Dataset((torch.from_numpy(images[user]), torch.from_numpy(labels[user])), user_id=str(user))

    data = FederatedDataset(dataset_of, get_user_sampler("minimize_reuse", users))
    network = Network(spatial_dims=2, in_channels=1, out_channels=2, **json.loads(arguments))
    begun, cpu = time.monotonic(), time.process_time()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=int(rounds),
            evaluation_frequency=10**9,
            train_cohort_size=len(users),
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data),
        model=PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0)),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=float(rate), local_batch_size=int(batch)
        ),
        model_eval_params=None,
        callbacks=[],
        send_metrics_to_platform=False,
    )
    told = {"seconds": time.monotonic() - begun, "cpu": time.process_time() - cpu}
    print(json.dumps({**told, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
