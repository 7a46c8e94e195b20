"""`iforest`: an isolation forest over one-sided z, fitted on the sounder half of the period and on background."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from oddlog.detectors.detector import FitData, Matrix
from oddlog.detectors.graph import Graph, tree_ensemble
from oddlog.detectors.normal import LIMIT
from oddlog.detectors.soundest import PER_BEHAVIOUR, soundest
from oddlog.detectors.surprise import Surprise
from oddlog.errors import UsageError

TREES = 200
MAX_SAMPLES = 256
SOUND_SHARE = 0.5
BACKGROUND = 0.2
"""Background rows, as a share of the sound ones: they teach the trees where splits are worth making."""
BACKGROUND_CELL = 0.5
"""Chance of a background cell to be U(0, LIMIT) instead of 0."""


class IForest:
    """Isolation forest (Liu, Ting, Zhou 2008) of scikit-learn on max(0, z).

    Score = 2 ** (-mean depth / c(max_samples)), in (0, 1). Contributions are additive in the mean depth, not in the
    score: they sum to how much shallower a row lies than the fitted rows do on average, each split giving what it
    changed in the expected depth to its feature.
    """

    name = "iforest"

    def __init__(
        self,
        *,
        trees: int = TREES,
        max_samples: int = MAX_SAMPLES,
        sound_share: float = SOUND_SHARE,
        background: float = BACKGROUND,
    ) -> None:
        """`trees` of at most `max_samples` rows each; `sound_share` of the rows, and of behaviours, count as sound.

        `background`: rows of it, as a share of the sound ones. Raises UsageError for values that make no forest."""
        if trees < 1 or max_samples < 2 or not 0 < sound_share <= 1 or background < 0:
            raise UsageError(
                f"iforest with trees {trees}, max_samples {max_samples}, sound_share {sound_share}, "
                f"background {background}",
                expected="trees from 1, max_samples from 2, a sound_share above 0 and up to 1, background from 0",
            )
        self._n_trees = trees
        self._max_samples = max_samples
        self._sound_share = sound_share
        self._background = background

    def fit(self, data: FitData, *, seed: int) -> Self:
        """Fit on sound rows and background. Deterministic by seed. Raises UsageError on no rows."""
        from sklearn.ensemble import IsolationForest

        surprise = Surprise().fit(data, seed=seed)
        self._columns = len(data.names)
        self._normal = surprise.normal
        rng = np.random.default_rng(seed)
        chosen = soundest(surprise.score(data.features), data.behaviour, self._sound_share, rng)
        sound = self._normal.above(data.features[chosen])
        shape = (max(1, round(self._background * len(sound))), self._columns)
        background = np.where(rng.random(shape) < BACKGROUND_CELL, rng.uniform(0.0, LIMIT, shape), 0.0)
        rows = np.concatenate([sound, background.astype(np.float32)])
        self._rows = len(sound)
        self._forest = IsolationForest(
            n_estimators=self._n_trees, max_samples=min(self._max_samples, len(rows)), random_state=seed
        ).fit(rows)
        self._trees = [estimator.tree_ for estimator in self._forest.estimators_]
        self._depths = [_leaf_depths(tree) for tree in self._trees]
        self._attributions = [
            _attributions(tree, depth, self._columns) / self._n_trees
            for tree, depth in zip(self._trees, self._depths, strict=True)
        ]
        return self

    def score(self, features: Matrix) -> npt.NDArray[np.float32]:
        """Scores [n] by scikit-learn's `score_samples`, with its sign turned."""
        if len(features) == 0:
            return np.empty(0, dtype=np.float32)
        result: npt.NDArray[np.float32] = -self._forest.score_samples(self._normal.above(features))
        return result.astype(np.float32)

    def contributions(self, features: Matrix) -> Matrix:
        """[n, d]: how much shallower each feature's splits made the row lie, in levels of depth."""
        inputs = np.ascontiguousarray(self._normal.above(features))
        total = np.zeros(inputs.shape)
        for tree, attribution in zip(self._trees, self._attributions, strict=True):
            total += attribution[tree.apply(inputs)]
        return total.astype(np.float32)

    def mean_depth(self, features: Matrix) -> npt.NDArray[np.float64]:
        """Mean depth over the trees [n], leaves counted as deep as their rows would still be split."""
        inputs = np.ascontiguousarray(self._normal.above(features))
        depths = [depth[tree.apply(inputs)] for tree, depth in zip(self._trees, self._depths, strict=True)]
        result: npt.NDArray[np.float64] = np.mean(depths, axis=0)
        return result

    @property
    def expected_depth(self) -> float:
        """Mean depth of the fitted rows: contributions sum to `expected_depth - mean_depth`."""
        roots = [
            np.average(depth[tree.children_left < 0], weights=tree.n_node_samples[tree.children_left < 0])
            for tree, depth in zip(self._trees, self._depths, strict=True)
        ]
        return float(np.mean(roots))

    def parameters(self) -> dict[str, Any]:
        """Hyperparameters, and how many rows counted as sound."""
        return {
            "n_estimators": self._n_trees,
            "max_samples": int(self._forest.max_samples_),
            "sound_share": self._sound_share,
            "sound_rows": self._rows,
            "lines_per_behaviour": PER_BEHAVIOUR,
            "background": self._background,
            "background_cell": BACKGROUND_CELL,
            "z_limit": LIMIT,
        }

    def score_graph(self) -> ModelProto:
        """ONNX: `features` -> `score`; the forest is one node, its leaves weigh depth + c(n)."""
        graph = Graph(self._columns)
        inputs = self._normal.above_nodes(graph)
        depth = tree_ensemble(graph, inputs, self._trees, [d[:, None] for d in self._depths], 1)
        unit = self._n_trees * float(_average_path_length(np.array([self._forest.max_samples_]))[0])
        exponent = graph.node("Mul", depth, graph.constant(-1.0 / unit))
        score = graph.node("Pow", graph.constant(2.0), exponent)
        return graph.model(graph.vector(score), "score")

    def contribution_graph(self) -> ModelProto:
        """ONNX: `features` -> `contributions`; the forest again, with a target for every feature."""
        graph = Graph(self._columns)
        inputs = self._normal.above_nodes(graph)
        parts = tree_ensemble(graph, inputs, self._trees, self._attributions, self._columns)
        return graph.model(parts, "contributions", self._columns)


def _average_path_length(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """c(n): mean path length of an unsuccessful search in a binary tree of n rows (Liu et al., formula 1).

    >>> _average_path_length(np.array([1, 2, 256])).round(3).tolist()
    [0.0, 1.0, 10.245]
    """
    n = rows.astype(np.float64)
    more = 2.0 * (np.log(np.maximum(n - 1.0, 1.0)) + np.euler_gamma) - 2.0 * (n - 1.0) / n
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, more))


def _leaf_depths(tree: Any) -> npt.NDArray[np.float64]:
    """Depth of every node of a tree [nodes]; for leaves, depth + c(rows in the leaf)."""
    depth = np.zeros(tree.node_count)
    for node in range(tree.node_count):  # children come after their parent
        if tree.children_left[node] >= 0:
            depth[tree.children_left[node]] = depth[tree.children_right[node]] = depth[node] + 1.0
    leaf = tree.children_left < 0
    return depth + np.where(leaf, _average_path_length(tree.n_node_samples), 0.0)


def _attributions(tree: Any, depth: npt.NDArray[np.float64], columns: int) -> npt.NDArray[np.float64]:
    """For every node, by feature, how much the splits on its path lowered the expected depth [nodes, d]."""
    expected = depth.copy()
    rows = tree.n_node_samples
    inner = np.flatnonzero(tree.children_left >= 0)
    for node in inner[::-1]:
        left, right = tree.children_left[node], tree.children_right[node]
        expected[node] = (rows[left] * expected[left] + rows[right] * expected[right]) / rows[node]
    part = np.zeros((tree.node_count, columns))
    for node in inner:
        for child in (tree.children_left[node], tree.children_right[node]):
            part[child] = part[node]
            part[child, tree.feature[node]] += expected[node] - expected[child]
    return part
