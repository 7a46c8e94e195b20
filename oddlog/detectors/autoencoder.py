"""`autoencoder`: a small network that learnt to copy the soundest rows; what it cannot copy is odd."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from oddlog.detectors.detector import FitData, Matrix
from oddlog.detectors.graph import Graph
from oddlog.detectors.normal import LIMIT
from oddlog.detectors.soundest import PER_BEHAVIOUR, soundest
from oddlog.detectors.surprise import BLOCKS, Surprise
from oddlog.errors import UsageError

HIDDEN = (8, 2, 8)
ALPHA = 1e-3
SOUND_SHARE = 0.3
MAX_ROWS = 8_000
MAX_ITERATIONS = 500
EARLY_STOPPING_ROWS = 50
"""With fewer rows there is nothing to hold back for validation."""


class Autoencoder:
    """Sum over features of w * max(0, x - x_hat) on x = max(0, z); x_hat from scikit-learn's MLPRegressor.

    A feature weighs as much as its block does in `surprise`, shared over the block. Residuals are one-sided: less
    than expected is no anomaly. Contributions are additive in the score: they sum to it.
    """

    name = "autoencoder"

    def __init__(
        self,
        *,
        outer: int = HIDDEN[0],
        inner: int = HIDDEN[1],
        alpha: float = ALPHA,
        sound_share: float = SOUND_SHARE,
        max_rows: int = MAX_ROWS,
    ) -> None:
        """Hidden layers of `outer`, `inner`, `outer` units; `alpha` weighs L2; at most `max_rows` sound rows.

        Raises UsageError for values that make no network."""
        if min(outer, inner, max_rows) < 1 or alpha < 0 or not 0 < sound_share <= 1:
            raise UsageError(
                f"autoencoder with outer {outer}, inner {inner}, alpha {alpha}, sound_share {sound_share}, "
                f"max_rows {max_rows}",
                expected="outer, inner and max_rows from 1, alpha from 0, a sound_share above 0 and up to 1",
            )
        self._hidden = (outer, inner, outer)
        self._alpha = alpha
        self._sound_share = sound_share
        self._max_rows = max_rows

    def fit(self, data: FitData, *, seed: int) -> Self:
        """Fit on the soundest rows. Deterministic by seed. Raises UsageError on no rows."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor

        surprise = Surprise().fit(data, seed=seed)
        self._columns = len(data.names)
        self._normal = surprise.normal
        self._weights = np.zeros(self._columns, dtype=np.float32)
        for block in BLOCKS.values():
            for feature in block.features:
                self._weights[data.names.index(feature)] = block.weight / len(block.features)
        rng = np.random.default_rng(seed)
        chosen = soundest(surprise.score(data.features), data.behaviour, self._sound_share, rng)
        if len(chosen) > self._max_rows:
            chosen = np.sort(rng.choice(chosen, self._max_rows, replace=False))
        rows = self._normal.above(data.features[chosen]).astype(np.float64)
        self._rows = len(rows)
        self._network = MLPRegressor(
            hidden_layer_sizes=self._hidden,
            activation="tanh",
            alpha=self._alpha,
            early_stopping=len(rows) >= EARLY_STOPPING_ROWS,
            max_iter=MAX_ITERATIONS,
            random_state=seed,
        )
        with warnings.catch_warnings():
            # Stopped after MAX_ITERATIONS is good enough; `iterations` among the parameters tells.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._network.fit(rows, rows)
        return self

    def score(self, features: Matrix) -> npt.NDArray[np.float32]:
        """Scores [n], 0 and more."""
        result: npt.NDArray[np.float32] = self.contributions(features).sum(axis=1, dtype=np.float32)
        return result

    def contributions(self, features: Matrix) -> Matrix:
        """[n, d]: the weighted one-sided residuals."""
        if len(features) == 0:
            return np.empty((0, self._columns), dtype=np.float32)
        x = self._normal.above(features).astype(np.float64)
        residual = np.maximum(0.0, x - self._network.predict(x).reshape(x.shape))
        parts: Matrix = (self._weights * residual).astype(np.float32)
        return parts

    def parameters(self) -> dict[str, Any]:
        """Hyperparameters, how many rows were copied from, and for how long."""
        return {
            "hidden_layer_sizes": list(self._hidden),
            "activation": "tanh",
            "alpha": self._alpha,
            "sound_share": self._sound_share,
            "sound_rows": self._rows,
            "lines_per_behaviour": PER_BEHAVIOUR,
            "iterations": int(self._network.n_iter_),
            "z_limit": LIMIT,
        }

    def _residuals(self, graph: Graph) -> str:
        x = hidden = self._normal.above_nodes(graph)
        layers = list(zip(self._network.coefs_, self._network.intercepts_, strict=True))
        for number, (weights, bias) in enumerate(layers):
            product = graph.node("MatMul", hidden, graph.constant(weights))
            hidden = graph.node("Add", product, graph.constant(bias))
            if number < len(layers) - 1:
                hidden = graph.node("Tanh", hidden)
        return graph.node("Relu", graph.node("Sub", x, hidden))

    def score_graph(self) -> ModelProto:
        """ONNX: `features` -> `score`."""
        graph = Graph(self._columns)
        score = graph.node("MatMul", self._residuals(graph), graph.constant(self._weights[:, None]))
        return graph.model(graph.vector(score), "score")

    def contribution_graph(self) -> ModelProto:
        """ONNX: `features` -> `contributions`."""
        graph = Graph(self._columns)
        parts = graph.node("Mul", self._residuals(graph), graph.constant(self._weights))
        return graph.model(parts, "contributions", self._columns)
