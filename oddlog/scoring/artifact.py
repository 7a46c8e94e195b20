"""The folder a model is kept in: its files, how they are written, the digest that holds them together.

    model.onnx           features -> score
    contributions.onnx   features -> contributions
    novelty.onnx         features -> novelty, contributions: the second channel (format 2)
    baseline.arrow       frozen tables of the features
    reference.arrow      what features and scores were distributed like, for drift
    card.json            everything else (card.py)

No pickle anywhere. Loading a model to score with is in model.py.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import ValidationError

from oddlog.errors import ArtifactError, UsageError
from oddlog.scoring.card import Calibration, Card, DatasetInfo, Golden, NoveltyCard, Threshold

if TYPE_CHECKING:
    from onnx import ModelProto

    from oddlog.detectors.detector import Detector
    from oddlog.detectors.novelty import Novelty
    from oddlog.events.privacy import PrivacyStamp
    from oddlog.features.baseline import Baseline

MODEL, CONTRIBUTIONS, NOVELTY = "model.onnx", "contributions.onnx", "novelty.onnx"
BASELINE, REFERENCE, CARD = "baseline.arrow", "reference.arrow", "card.json"
DIGESTED = (MODEL, CONTRIBUTIONS, BASELINE, REFERENCE)
FILES = (*DIGESTED, CARD)
"""What every model has; one of format 2 has NOVELTY beside them."""

_UNDIGESTED = ("model_digest", "created_at")
_MEND = "oddlog train, and promote the new version"


@dataclass(frozen=True, slots=True)
class NoveltyPart:
    """The second channel of a model: fitted, its median over the fitted rows, calibrated on the later period."""

    channel: Novelty
    typical: float
    calibration: Calibration


def write_artifact(
    folder: Path,
    *,
    detector: Detector,
    baseline: Baseline,
    typical: Mapping[str, float],
    calibration: Calibration,
    threshold: Threshold,
    dataset: DatasetInfo,
    reference: pl.DataFrame,
    golden: Golden,
    seed: int,
    created_at: dt.datetime,
    novelty: NoveltyPart | None = None,
    privacy: PrivacyStamp | None = None,
) -> Card:
    """Write the whole folder beside `folder`, then rename it there, so that no half artifact is ever seen.

    `typical` is the median of every feature, in the order of the declaration; `reference` comes from
    `make_reference`, `golden` from `make_golden`. Without `novelty` the artifact has format 1. An artifact that is
    there already is replaced. `privacy`: under which the events were made.
    """
    from oddlog.features.declaration import FEATURE_NAMES, feature_digest

    if list(typical) != list(FEATURE_NAMES):
        raise ArtifactError(
            f"typical values of {', '.join(typical)}",
            expected=f"one of each feature: {', '.join(FEATURE_NAMES)}",
        )
    contents = {
        MODEL: _graph_bytes(detector.score_graph()),
        CONTRIBUTIONS: _graph_bytes(detector.contribution_graph()),
        BASELINE: baseline.to_arrow(),
        REFERENCE: frame_to_arrow(reference),
    }
    if novelty is not None:
        contents[NOVELTY] = _graph_bytes(novelty.channel.graph())
    undigested = Card.model_validate(
        {
            "format": 1 if novelty is None else 2,
            "algorithm": detector.name,
            "parameters": detector.parameters(),
            "seed": seed,
            "feature_names": list(FEATURE_NAMES),
            "feature_digest": feature_digest(),
            "baseline_digest": baseline.digest,
            "typical": dict(typical),
            "dataset": dataset,
            "calibration": calibration,
            "threshold": threshold,
            "golden": golden,
            "novelty": None if novelty is None else _novelty_card(novelty, golden),
            "privacy": privacy,
            "oddlog_version": _oddlog_version(),
            "created_at": created_at,
            "model_digest": "",
        }
    )
    card = undigested.model_copy(update={"model_digest": _digest(contents, undigested)})
    contents[CARD] = (card.model_dump_json(indent=2, exclude=card.unknown_to_format) + "\n").encode()

    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    beside.mkdir()
    try:
        for name, data in contents.items():
            (beside / name).write_bytes(data)
        if folder.exists():
            old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.old")
            os.replace(folder, old)
            os.replace(beside, folder)
            shutil.rmtree(old)
        else:
            os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return card


def read_card(folder: Path) -> Card:
    """The card of an artifact, not verified against the other files. Raises ArtifactError."""
    _check_there(folder, FILES)
    try:
        card = Card.model_validate_json(_read(folder / CARD))
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(
            f"{folder / CARD}: {'.'.join(map(str, first['loc'])) or 'the document'}: {first['msg']}",
            expected="a card of format 1 or 2",
            mend=_MEND,
        ) from None
    _check_there(folder, _digested(card))
    return card


def _check_there(folder: Path, files: Sequence[str]) -> None:
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise ArtifactError(
            f"{folder} lacks {', '.join(missing)}",
            expected=f"a model artifact: {', '.join(dict.fromkeys([*FILES, *files]))}",
            mend=_MEND,
        )


def _digested(card: Card) -> tuple[str, ...]:
    """The files beside the card."""
    return DIGESTED if card.format == 1 else (*DIGESTED, NOVELTY)


def read_verified(folder: Path) -> tuple[Card, dict[str, bytes]]:
    """The card and the bytes of the other files, their digest checked. Raises ArtifactError."""
    card = read_card(folder)
    contents = {name: _read(folder / name) for name in _digested(card)}
    found = _digest(contents, card)
    if found != card.model_digest:
        raise ArtifactError(
            f"{folder} has the digest {found[:16]}...: a file was changed or cut short since it was written",
            expected=f"{card.model_digest[:16]}..., as its card says",
            mend="remove the cached copy so that it is fetched again; else oddlog train",
        )
    return card, contents


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:  # no right to, or removed since it was looked for
        raise ArtifactError(
            f"{file} cannot be read: {error.strerror}", expected="a model artifact that this user may read", mend=_MEND
        ) from error


def make_golden(
    detector: Detector, features: npt.NDArray[np.float32], scores: npt.ArrayLike, *, rows: int = 32
) -> Golden:
    """Rows spread evenly over the ranks of `scores` [n], with the scores that the detector itself gives them.

    Raises UsageError where no row is finite."""
    matrix = np.asarray(features, dtype=np.float32)
    finite = np.flatnonzero(np.isfinite(matrix).all(axis=1))
    if finite.size == 0:
        raise UsageError("no finite row to make golden vectors from", expected="features of at least one event")
    by_score = finite[np.argsort(np.asarray(scores)[finite], kind="stable")]
    chosen = by_score[np.unique(np.linspace(0, by_score.size - 1, rows).round().astype(np.intp))]
    return Golden(
        features=matrix[chosen].astype(float).tolist(),
        scores=detector.score(matrix[chosen]).astype(float).tolist(),
    )


def frame_to_arrow(frame: pl.DataFrame) -> bytes:
    """Arrow IPC file bytes of a frame; the same for equal frames."""
    buffer = io.BytesIO()
    frame.rechunk().write_ipc(buffer, compression="uncompressed")
    return buffer.getvalue()


def frame_from_arrow(data: bytes) -> pl.DataFrame:
    """The frame of Arrow IPC file bytes."""
    return pl.read_ipc(io.BytesIO(data))


def _digest(contents: Mapping[str, bytes], card: Card) -> str:
    whole = hashlib.sha256()
    canonical = json.dumps(
        card.model_dump(mode="json", exclude={**dict.fromkeys(_UNDIGESTED, True), **card.unknown_to_format}),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode()
    for name, data in [*((name, contents[name]) for name in _digested(card)), (CARD, canonical)]:
        whole.update(f"{name}:{len(data)}:".encode())
        whole.update(data)
    return whole.hexdigest()


def _novelty_card(part: NoveltyPart, golden: Golden) -> NoveltyCard:
    rows = np.asarray(golden.features, dtype=np.float32)
    return NoveltyCard(
        parameters=part.channel.parameters(),
        typical=part.typical,
        calibration=part.calibration,
        golden=part.channel.score(rows).astype(float).tolist(),
    )


def _graph_bytes(graph: ModelProto) -> bytes:
    return bytes(graph.SerializeToString(deterministic=True))


def _oddlog_version() -> str:
    try:
        return version("oddlog")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"
