"""A model that scores: an artifact, loaded and checked. Who holds which version is in shelf.py."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.errors import ArtifactError, ScorerError
from oddlog.features.baseline import Baseline
from oddlog.features.declaration import FEATURE_NAMES, feature_digest
from oddlog.scoring import calibration
from oddlog.scoring.artifact import (
    BASELINE,
    CONTRIBUTIONS,
    MODEL,
    NOVELTY,
    REFERENCE,
    frame_from_arrow,
    read_verified,
)
from oddlog.scoring.card import Card, Threshold
from oddlog.scoring.explanation import explain, explain_novelty
from oddlog.scoring.scorer import NoveltyScores, Reason
from oddlog.scoring.threshold import anomalies

Matrix = npt.NDArray[np.float32]

GOLDEN_RTOL, GOLDEN_ATOL = 1e-4, 1e-5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model says of n rows: the fields of `Scores` that are its own to tell."""

    score: npt.NDArray[np.float32]
    severity: npt.NDArray[np.float64]
    is_anomaly: npt.NDArray[np.bool_]
    reasons: dict[int, list[Reason]]
    novelty: NoveltyScores | None


class Model:
    """Scores float32 matrices [n, d] whose columns are `card.feature_names`; n may be 0. Safe to share by
    threads."""

    def __init__(self, card: Card, contents: dict[str, bytes], *, threads: int = 1) -> None:
        """Of a verified artifact; `Model.load` is the way in."""
        self.card = card
        self.baseline_bytes = contents[BASELINE]
        self.baseline = Baseline.from_arrow(self.baseline_bytes)
        self._reference = contents[REFERENCE]
        self._threads = threads
        self._score = _session(contents[MODEL], threads)
        self._novelty = None if card.novelty is None else _session(contents[NOVELTY], threads)
        self._curve = calibration.Curve(card.calibration)
        self._novelty_curve = None if card.novelty is None else calibration.Curve(card.novelty.calibration)
        # Its graph is run for anomalies alone, and by many processes never: it is built at the first of them.
        self._contribution_graph = contents[CONTRIBUTIONS]
        self._contributions: Any = None
        self._lock = threading.Lock()

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> Model:
        """The model in `folder`, after its digest, features, baseline and golden vectors were checked.

        `threads`: how many the scoring of one matrix may use. Raises ArtifactError."""
        card, contents = read_verified(folder)
        _check_features(card)
        try:
            model = cls(card, contents, threads=threads)
        except ArtifactError:
            raise
        except Exception as error:  # onnxruntime and Arrow raise types of their own for bytes they cannot read
            raise ArtifactError(
                f"{folder}: {type(error).__name__}: {str(error)[:300]}",
                expected="graphs and tables that this version of oddlog can load",
                mend="oddlog train, and promote the new version",
            ) from error
        if model.baseline.digest != card.baseline_digest:
            raise ArtifactError(
                f"a baseline with the digest {model.baseline.digest}",
                expected=f"{card.baseline_digest}, as the card says",
                mend="oddlog train, and promote the new version",
            )
        model.check_golden()
        return model

    def check_golden(self) -> None:
        """Recompute the golden vectors. Raises ArtifactError where a score is another than when it was
        made."""
        rows = np.asarray(self.card.golden.features, dtype=np.float32).reshape(-1, len(self.card.feature_names))
        _compare_golden("scores", self.score(rows), self.card.golden.scores)
        if self.card.novelty is not None and (novelty := self.novelty(rows)) is not None:
            _compare_golden("has a novelty of", novelty, self.card.novelty.golden)

    def score(self, features: Matrix) -> npt.NDArray[np.float32]:
        """Scores float32 [n], higher = more anomalous."""
        return _run(self._score, "score", features, (len(features),))

    def novelty(self, features: Matrix) -> npt.NDArray[np.float32] | None:
        """Novelty float32 [n], higher = odder in itself; None where the model has no second channel."""
        return None if self._novelty is None else _run(self._novelty, "novelty", features, (len(features),))

    def severity(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Severities float64 [n] of scores [n] (calibration.py)."""
        return self._curve.severity(scores)

    def contributions(self, features: Matrix) -> Matrix:
        """How much each feature carried, float32 [n, d]; what it is additive in, the detector's class
        states."""
        if self._contributions is None:
            with self._lock:
                if self._contributions is None:
                    self._contributions = _session(self._contribution_graph, self._threads)
        return _run(self._contributions, "contributions", features, np.shape(features))

    def judge(self, features: Matrix, threshold: Threshold | None = None) -> Verdict:
        """The verdict on every row, with reasons for anomalies alone.

        `threshold`: None takes the one that the model was made with."""
        threshold = threshold or self.card.threshold
        score, novelty = self.score(features), self.novelty(features)
        is_anomaly, novel = anomalies(threshold, score, novelty)
        reasons: dict[int, list[Reason]] = {}
        # What the first channel does not find odd, it is not asked to explain.
        odd = np.flatnonzero(score.astype(np.float64) >= threshold.value)
        if odd.size:
            rows = np.ascontiguousarray(features[odd])
            explained = explain(rows, self.contributions(rows), self.card.feature_names, self.card.typical)
            reasons = {int(row): found for row, found in zip(odd, explained, strict=True)}
        second = None
        if novelty is not None and threshold.novelty is not None and self._novelty_curve is not None:
            new = np.flatnonzero(novel)
            if new.size:
                told = self._told_of_novelty(np.ascontiguousarray(features[new]), novelty[new])
                for row, reason in zip(new.tolist(), told, strict=True):
                    reasons.setdefault(row, []).append(reason)
            second = NoveltyScores(
                threshold=threshold.novelty.value,
                score=novelty,
                severity=self._novelty_curve.severity(novelty),
                is_anomaly=novel,
            )
        return Verdict(score, self.severity(score), is_anomaly, reasons, second)

    def _told_of_novelty(self, rows: Matrix, novelty: npt.NDArray[np.float32]) -> list[Reason]:
        assert self.card.novelty is not None
        names, usual = self.card.feature_names, self.card.novelty.typical
        return explain_novelty(rows, self.novelty_parts(rows), names, self.card.typical, novelty, usual)

    def novelty_parts(self, features: Matrix) -> Matrix:
        """How much each feature carried of the novelty, float32 [n, d]; they sum to it. Without that channel, 0."""
        if self._novelty is None:
            return np.zeros(np.shape(features), dtype=np.float32)
        return _run(self._novelty, "contributions", features, np.shape(features))

    def ordered(self, features: Matrix, names: Sequence[str]) -> Matrix:
        """`features` [n, len(names)] with its columns in the model's order.

        Raises ScorerError where the names are not the model's; it lists those that differ."""
        matrix = np.asarray(features, dtype=np.float32)
        expected = self.card.feature_names
        if matrix.ndim != 2 or matrix.shape[1] != len(names):
            raise ScorerError(
                f"a matrix of shape {matrix.shape} with {len(names)} column names",
                expected=f"[rows, {len(expected)}]",
            )
        if list(names) == expected:
            return matrix
        missing = [name for name in expected if name not in names]
        unknown = [name for name in names if name not in expected]
        repeated = sorted({name for name in names if list(names).count(name) > 1})
        if missing or unknown or repeated:
            parts = {"missing": missing, "unknown": unknown, "repeated": repeated}
            raise ScorerError(
                "the columns are not the model's: "
                + "; ".join(f"{kind} {', '.join(some)}" for kind, some in parts.items() if some),
                expected=", ".join(expected),
                mend="compute the features with the version of oddlog that the model was trained with",
            )
        return np.ascontiguousarray(matrix[:, [list(names).index(name) for name in expected]])

    def reference(self) -> pl.DataFrame:
        """Quantile points of every feature, `score` and `severity` (reference.py)."""
        return frame_from_arrow(self._reference)


def _compare_golden(what: str, found: npt.NDArray[np.float32], golden: Sequence[float]) -> None:
    expected = np.asarray(golden, dtype=np.float64)
    if found.shape == expected.shape and np.allclose(found, expected, rtol=GOLDEN_RTOL, atol=GOLDEN_ATOL):
        return
    if found.shape != expected.shape:
        raise ArtifactError(f"{len(found)} golden vectors with {len(expected)} values", mend="oddlog train")
    worst = int(np.argmax(np.nan_to_num(np.abs(found - expected), nan=np.inf)))
    raise ArtifactError(
        f"golden vector {worst} {what} {found[worst]:.6g}",
        expected=f"{expected[worst]:.6g}, as when the model was made",
        mend="check the versions of onnxruntime and numpy; else oddlog train",
    )


def _check_features(card: Card) -> None:
    if card.feature_digest == feature_digest() and card.feature_names == list(FEATURE_NAMES):
        return
    differ = sorted(set(card.feature_names) ^ set(FEATURE_NAMES))
    raise ArtifactError(
        f"the model was made for other features (digest {card.feature_digest[:12]}"
        + (f"; differing: {', '.join(differ)})" if differ else "; the same names with other definitions)"),
        expected=f"digest {feature_digest()[:12]}, of the features of this version of oddlog",
        mend="oddlog train, or run the version of oddlog that the model's card names",
    )


def _session(graph: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings about a graph are for whoever compiles it
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _run(session: Any, output: str, features: Matrix, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if len(features) == 0:  # not every ONNX operator takes an empty matrix
        return np.zeros(shape, dtype=np.float32)
    (result,) = session.run([output], {"features": np.ascontiguousarray(features, dtype=np.float32)})
    return np.asarray(result, dtype=np.float32).reshape(shape)
