"""`surprise`: a weighted sum of normalised blocks of features. Transparent; the others choose their rows by it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from oddlog.detectors.detector import FitData, Matrix
from oddlog.detectors.graph import Graph
from oddlog.detectors.normal import FLOOR, LIMIT, Normal, check_rows, clipped
from oddlog.errors import UsageError


@dataclass(frozen=True, slots=True)
class Block:
    """Features that say the same thing, and how much it counts."""

    features: tuple[str, ...]
    weight: float


BLOCKS: dict[str, Block] = {
    "error": Block(("client_error_1h", "client_error_1d"), 1.0),
    "token": Block(("client_token_1h", "client_token_1d"), 1.0),
    "company": Block(("client_company_1h", "client_company_1d"), 1.0),
    "page": Block(("client_page_1h", "client_page_1d"), 0.5),
    "post": Block(("client_post_1h", "client_post_1d"), 0.5),
    "novelty": Block(("section_rarity", "subsection_rarity", "path_rarity", "token_rarity"), 0.3),
    "habit": Block(("method_rarity", "status_rarity"), 0.3),
}
"""Client blocks first. Negative evidence counts: a client that looks sound lowers the score of an odd request."""


class Surprise:
    """Sum over blocks of weight * block; a block is the mean of its features' z, normalised once more.

    Contributions are additive in the score: they sum to it.
    """

    name = "surprise"

    def fit(self, data: FitData, *, seed: int) -> Self:
        """Learn means and deviations; `seed` changes nothing. Raises UsageError on no rows or missing features."""
        check_rows(data)
        missing = [f for block in BLOCKS.values() for f in block.features if f not in data.names]
        if missing:
            raise UsageError(f"features are missing: {', '.join(missing)}", expected="the columns of FEATURE_NAMES")
        self._names = data.names
        self._weights = np.array([block.weight for block in BLOCKS.values()], dtype=np.float32)
        self._member = np.zeros((len(data.names), len(BLOCKS)), dtype=np.float32)
        for column, block in enumerate(BLOCKS.values()):
            for feature in block.features:
                self._member[data.names.index(feature), column] = 1.0
        self._mean = self._member / self._member.sum(axis=0)
        self.normal = Normal.fit(data.features, data.weights)
        self._block_normal = Normal.fit(self.normal(data.features) @ self._mean, data.weights)
        return self

    def score(self, features: Matrix) -> npt.NDArray[np.float32]:
        """Scores [n], within +- LIMIT * sum of the blocks' weights."""
        blocks = self._block_normal(self.normal(features) @ self._mean)
        result: npt.NDArray[np.float32] = blocks @ self._weights
        return result

    def contributions(self, features: Matrix) -> Matrix:
        """[n, d]: a block's part of the score, shared out by how far each feature is from the block's mean."""
        z = self.normal(features)
        block = self._block_normal
        raw = (z @ self._mean - block.mean) / block.deviation
        ratio = np.where(raw == 0, np.float32(1), self._block_normal(z @ self._mean) / np.where(raw == 0, 1, raw))
        result: Matrix = (z - self._offset) * self._scale * (ratio.astype(np.float32) @ self._member.T)
        return result

    @property
    def _offset(self) -> npt.NDArray[np.float32]:
        """Mean of each feature's block [d]."""
        offset: npt.NDArray[np.float32] = self._member @ self._block_normal.mean
        return offset

    @property
    def _scale(self) -> npt.NDArray[np.float32]:
        """What one z of each feature adds to the score while its block is not clipped [d]."""
        scale: npt.NDArray[np.float32] = self._mean @ (self._weights / self._block_normal.deviation)
        return scale

    def parameters(self) -> dict[str, Any]:
        """Blocks, their weights, and the limits of normalisation."""
        return {
            "blocks": {name: asdict(block) for name, block in BLOCKS.items()},
            "z_limit": LIMIT,
            "deviation_floor": FLOOR,
        }

    def score_graph(self) -> ModelProto:
        """ONNX: `features` -> `score`."""
        graph = Graph(len(self._names))
        means = graph.node("MatMul", self.normal.nodes(graph), graph.constant(self._mean))
        blocks = self._block_normal.nodes(graph, means)
        score = graph.node("MatMul", blocks, graph.constant(self._weights[:, None]))
        return graph.model(graph.vector(score), "score")

    def contribution_graph(self) -> ModelProto:
        """ONNX: `features` -> `contributions`."""
        graph = Graph(len(self._names))
        z = self.normal.nodes(graph)
        raw = self._block_normal.unclipped(graph, graph.node("MatMul", z, graph.constant(self._mean)))
        zero = graph.node("Equal", raw, graph.constant(0.0))
        one = graph.constant(1.0)
        ratio = graph.node("Div", clipped(graph, raw), graph.node("Where", zero, one, raw))
        ratio = graph.node("Where", zero, one, ratio)
        share = graph.node("MatMul", ratio, graph.constant(self._member.T))
        part = graph.node("Mul", graph.node("Sub", z, graph.constant(self._offset)), graph.constant(self._scale))
        return graph.model(graph.node("Mul", part, share), "contributions", len(self._names))
