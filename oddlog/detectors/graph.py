"""ONNX graphs built by hand: a small builder, and one forest as one node. What is computed: each detector's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
OPSET_ML = 3
IR_VERSION = 8
"""Old enough for every onnxruntime this project allows."""

INPUT = "features"


class Graph:
    """A graph under construction: `features` float32 [rows, columns] in, one tensor out, or several."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, value: npt.ArrayLike, *, dtype: npt.DTypeLike = np.float32) -> str:
        """A constant inside the model, by its name."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """One operator; gives the name of its output."""
        name = f"{operator}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def vector(self, matrix: str) -> str:
        """[rows, 1] -> [rows]; works on no rows too, as Reshape would not."""
        return self.node("Squeeze", matrix, self.constant([1], dtype=np.int64))

    def model(self, result: str, output: str, columns: int | None = None) -> onnx.ModelProto:
        """The checked model; `output` float32 [rows] or, with `columns`, [rows, columns]."""
        return self.model_of({output: (result, columns)})

    def model_of(self, outputs: Mapping[str, tuple[str, int | None]]) -> onnx.ModelProto:
        """The checked model with several outputs: by name the tensor, and its columns (None: [rows])."""
        shapes = []
        for number, (output, (result, columns)) in enumerate(outputs.items()):
            self._nodes.append(helper.make_node("Identity", [result], [output], name=f"output{number or ''}"))
            shape = ["rows"] if columns is None else ["rows", columns]
            shapes.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
        graph = helper.make_graph(
            self._nodes,
            "oddlog",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", self._columns])],
            shapes,
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)],
            producer_name="oddlog",
        )
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model


def tree_ensemble(graph: Graph, features: str, trees: list[Any], leaf_weights: list[Any], targets: int) -> str:
    """A forest as one TreeEnsembleRegressor: sums over trees of the weights of the leaf reached [rows, targets].

    `trees`: scikit-learn `tree_` objects; `leaf_weights`: one float array [nodes, targets] for each.
    """
    nodes: dict[str, list[Any]] = {
        key: [] for key in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    }
    weights: dict[str, list[Any]] = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    for number, (tree, leaf_weight) in enumerate(zip(trees, leaf_weights, strict=True)):
        leaf = tree.children_left < 0
        count = len(leaf)
        nodes["treeids"] += [number] * count
        nodes["nodeids"] += range(count)
        nodes["featureids"] += np.where(leaf, 0, tree.feature).tolist()
        nodes["values"] += np.where(leaf, 0.0, _round_down(tree.threshold)).tolist()
        nodes["modes"] += np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
        nodes["truenodeids"] += np.where(leaf, 0, tree.children_left).tolist()
        nodes["falsenodeids"] += np.where(leaf, 0, tree.children_right).tolist()
        held = leaf[:, None] & (np.asarray(leaf_weight) != 0.0)
        held[leaf & ~held.any(axis=1), 0] = True  # every leaf must name a target
        at, target = np.nonzero(held)
        weights["treeids"] += [number] * len(at)
        weights["nodeids"] += at.tolist()
        weights["ids"] += target.tolist()
        weights["weights"] += np.asarray(leaf_weight)[at, target].tolist()
    attributes: Mapping[str, Any] = {
        **{f"nodes_{key}": values for key, values in nodes.items()},
        **{f"target_{key}": values for key, values in weights.items()},
    }
    return graph.node("TreeEnsembleRegressor", features, domain="ai.onnx.ml", n_targets=targets, **attributes)


def _round_down(threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 not above a threshold: for a float32 x, x <= t holds exactly when x <= round_down(t)."""
    near = threshold.astype(np.float32)
    below: npt.NDArray[np.float32] = np.where(
        near.astype(np.float64) > threshold, np.nextafter(near, np.float32(-np.inf)), near
    ).astype(np.float32)
    return below
