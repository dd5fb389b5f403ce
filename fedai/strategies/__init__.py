"""How updates become new weights: a study's `strategy`, one short file each, by name from a closed list."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fedai.strategies.bulyan import Bulyan
from fedai.strategies.cyclic import Cyclic
from fedai.strategies.ditto import Ditto
from fedai.strategies.fedadagrad import FedAdagrad
from fedai.strategies.fedadam import FedAdam
from fedai.strategies.fedavg import FedAvg
from fedai.strategies.fedavgm import FedAvgM
from fedai.strategies.fedbn import FedBN
from fedai.strategies.fedbuff import FedBuff
from fedai.strategies.feddyn import FedDyn
from fedai.strategies.fednova import FedNova
from fedai.strategies.fedper import FedPer
from fedai.strategies.fedprox import FedProx
from fedai.strategies.fedrep import FedRep
from fedai.strategies.fedyogi import FedYogi
from fedai.strategies.geometric_median import GeometricMedian
from fedai.strategies.krum import Krum
from fedai.strategies.median import Median
from fedai.strategies.qfedavg import QFedAvg
from fedai.strategies.rule import Conditions, Rule, State
from fedai.strategies.scaffold import Scaffold
from fedai.strategies.trimmed_mean import TrimmedMean

__all__ = ["Conditions", "FedAvg", "FedBuff", "Rule", "State", "Strategy"]

Strategy = Annotated[
    FedAvg
    | FedAvgM
    | FedProx
    | FedAdam
    | FedYogi
    | FedAdagrad
    | Scaffold
    | FedNova
    | FedDyn
    | QFedAvg
    | FedBuff
    | FedBN
    | FedPer
    | FedRep
    | Ditto
    | Cyclic
    | Median
    | TrimmedMean
    | Krum
    | Bulyan
    | GeometricMedian,
    Field(discriminator="name"),
]
