"""What every detector keeps; tests/contract/test_detector.py runs it over all of them."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from oddlog.features.compute import FitData

__all__ = ["Detector", "FitData", "Matrix"]

Matrix = npt.NDArray[np.float32]


@runtime_checkable
class Detector(Protocol):
    """One algorithm. Scores: higher = more anomalous, finite for every input, NaN taken as typical."""

    name: str

    def fit(self, data: FitData, *, seed: int) -> Self:
        """Learn from unlabelled events, attacks among them. Deterministic by seed. UsageError on no rows."""

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
