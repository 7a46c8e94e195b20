"""Normalisation of features by the fitted period: z by weighted mean and deviation, clipped. In numpy and in ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from oddlog.detectors.graph import INPUT, Graph
from oddlog.errors import UsageError
from oddlog.features.compute import FitData

Floats = npt.NDArray[np.float32]

LIMIT = 8.0
"""z is clipped to +-LIMIT: one extraordinary column must not drown the others."""

FLOOR = 0.01
"""Smallest deviation: a column that was constant in the fitted period still tells when it moves."""


@dataclass(frozen=True, slots=True)
class Normal:
    """Mean and deviation of every column, float32 [d]."""

    mean: Floats
    deviation: Floats

    @classmethod
    def fit(cls, columns: npt.NDArray[np.floating], weights: npt.NDArray[np.float64]) -> Self:
        """Weighted mean and deviation [d] of `columns` [n, d]; cells that are not finite are left out."""
        columns = np.asarray(columns)
        mean, deviation = np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
        for number, column in enumerate(columns.T):  # one in doubles at a time: there may be millions of rows
            values = column.astype(np.float64)
            finite = np.isfinite(values)
            weight, values = np.where(finite, weights, 0.0), np.where(finite, values, 0.0)
            total = max(weight.sum(), np.finfo(np.float64).tiny)
            mean[number] = (weight * values).sum() / total
            deviation[number] = np.sqrt((weight * (values - mean[number]) ** 2).sum() / total)
        return cls(mean.astype(np.float32), np.maximum(deviation, FLOOR).astype(np.float32))

    def __call__(self, columns: npt.NDArray[np.floating]) -> Floats:
        """z float32 [n, d] in [-LIMIT, LIMIT]; NaN counts as the mean."""
        x = np.asarray(columns, dtype=np.float32)
        z: Floats = np.where(np.isnan(x), self.mean, x)
        with np.errstate(over="ignore"):  # the largest floats become infinite, and are clipped
            z -= self.mean
            z /= self.deviation
        return np.clip(z, np.float32(-LIMIT), np.float32(LIMIT), out=z)

    def above(self, columns: npt.NDArray[np.floating]) -> Floats:
        """max(0, z) float32 [n, d] in [0, LIMIT]: what is more than usual; less than usual is no anomaly."""
        higher: Floats = np.maximum(self(columns), np.float32(0))
        return higher

    def nodes(self, graph: Graph, columns: str = INPUT) -> str:
        """z in a graph."""
        return clipped(graph, self.unclipped(graph, columns))

    def above_nodes(self, graph: Graph) -> str:
        """max(0, z) of the features in a graph."""
        return graph.node("Relu", self.nodes(graph))

    def unclipped(self, graph: Graph, columns: str = INPUT) -> str:
        """(x - mean) / deviation in a graph."""
        mean = graph.constant(self.mean)
        x = graph.node("Where", graph.node("IsNaN", columns), mean, columns)
        return graph.node("Div", graph.node("Sub", x, mean), graph.constant(self.deviation))


def clipped(graph: Graph, values: str) -> str:
    """Values in [-LIMIT, LIMIT] in a graph."""
    return graph.node("Clip", values, graph.constant(-LIMIT), graph.constant(LIMIT))


def check_rows(data: FitData) -> None:
    """Raises UsageError where there is nothing to fit on."""
    if len(data.features) == 0:
        raise UsageError("there are no rows to fit a detector on", expected="at least one event")
