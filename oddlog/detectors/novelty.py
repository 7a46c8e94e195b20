"""`novelty`, the second channel: how odd a request is in itself, whoever sends it. The first channel is a detector's.

A detector weighs a client's whole behaviour, so that one strange request of a busy sound client is lost in it: a web
shell used from an office's address. Here the request alone counts: how new its path and words are.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from oddlog.detectors.detector import FitData, Matrix
from oddlog.detectors.graph import Graph
from oddlog.detectors.normal import LIMIT, Normal, check_rows
from oddlog.detectors.surprise import BLOCKS
from oddlog.errors import UsageError

RARITIES = BLOCKS["novelty"].features
"""How rare the path is, its first one and two segments, and the words of the URL."""

OUTPUT = "novelty"


class Novelty:
    """Mean z of the four rarities of path and words, every fitted line weighted 1 / (lines of its client-hour).

    No detector to choose for the first channel: it knows nothing of the client, and has a threshold of its own.
    Contributions are additive in the score: they sum to it.
    """

    name = "novelty"

    def fit(self, data: FitData, *, seed: int = 0) -> Self:
        """Learn means and deviations; `seed` changes nothing. Raises UsageError on no rows or missing features."""
        check_rows(data)
        if missing := [name for name in RARITIES if name not in data.names]:
            raise UsageError(f"features are missing: {', '.join(missing)}", expected="the columns of FEATURE_NAMES")
        self._columns = [data.names.index(name) for name in RARITIES]
        self._width = len(data.names)
        self._normal = Normal.fit(data.features[:, self._columns], data.weights)
        return self

    def score(self, features: Matrix) -> npt.NDArray[np.float32]:
        """Scores [n], within +- LIMIT."""
        z: npt.NDArray[np.float32] = self._normal(features[:, self._columns]).mean(axis=1, dtype=np.float32)
        return z

    def contributions(self, features: Matrix) -> Matrix:
        """[n, d]: a quarter of each rarity's z; 0 of everything else."""
        parts = np.zeros((len(features), self._width), dtype=np.float32)
        parts[:, self._columns] = self._normal(features[:, self._columns]) / np.float32(len(self._columns))
        return parts

    def parameters(self) -> dict[str, Any]:
        """What it is made of, and the limit of normalisation."""
        return {"features": list(RARITIES), "z_limit": LIMIT}

    def graph(self) -> ModelProto:
        """ONNX: `features` -> `novelty` [n] and `contributions` [n, d], both at once: they cost next to nothing."""
        graph = Graph(self._width)
        chosen = graph.node("Gather", "features", graph.constant(self._columns, dtype=np.int64), axis=1)
        z = self._normal.nodes(graph, chosen)
        spread = np.zeros((len(self._columns), self._width), dtype=np.float32)
        spread[np.arange(len(self._columns)), self._columns] = 1.0 / len(self._columns)
        weights = np.full((len(self._columns), 1), 1.0 / len(self._columns), dtype=np.float32)
        score = graph.vector(graph.node("MatMul", z, graph.constant(weights)))
        parts = graph.node("MatMul", z, graph.constant(spread))
        return graph.model_of({OUTPUT: (score, None), "contributions": (parts, self._width)})
