"""What every detector keeps; tests/contract/test_detector.py runs it over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FitData:
    """What a detector is fitted on, row by row in event order.

    `features` float32 [n, d], computed with a line's own unit of counting left out;
    `weights` float64 [n], 1 / (lines of its client-hour); `behaviour` int64 [n], number of the line's behaviour.
    """

    features: Matrix
    weights: npt.NDArray[np.float64]
    behaviour: npt.NDArray[np.int64]
    names: tuple[str, ...]


@runtime_checkable
class Detector(Protocol):
    """One algorithm. Scores: higher = more anomalous, finite for every input, NaN taken as the typical value."""

    name: str

    def fit(self, data: FitData, *, seed: int) -> Self:
        """Learn from unlabelled events, attacks among them. Deterministic by seed. Raises UsageError on no rows."""

    def score(self, features: Matrix) -> npt.NDArray[np.float32]:
        """Scores [n] of a matrix [n, d], by the reference implementation (scikit-learn or numpy)."""

    def contributions(self, features: Matrix) -> Matrix:
        """[n, d]: how much each feature carried; additive in what the class states."""

    def parameters(self) -> dict[str, Any]:
        """Hyperparameters in force, JSON-able."""

    def score_graph(self) -> ModelProto:
        """ONNX: `features` float32 [n, d] -> `score` float32 [n]; equal to `score` (rtol 1e-4, atol 1e-5)."""

    def contribution_graph(self) -> ModelProto:
        """ONNX: `features` float32 [n, d] -> `contributions` float32 [n, d]."""
