"""A log file scored without a server: read, then judged by a model fitted on it, or by one that exists.

Who stands out of the scores is in `findings.py`; the page about them in `page.py`. Nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from oddlog.detectors.catalogue import create
from oddlog.detectors.novelty import Novelty
from oddlog.errors import UsageError
from oddlog.events.logstream import records_of
from oddlog.events.parse import parse
from oddlog.events.privacy import Parser
from oddlog.events.schema import EVENT_SCHEMA
from oddlog.features.compute import FeatureComputer, FitData, fit_features
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.features.fitting import units_of
from oddlog.scoring.calibration import fit_calibration, severity
from oddlog.scoring.card import Threshold
from oddlog.scoring.explanation import explain
from oddlog.scoring.model import Model
from oddlog.scoring.scorer import Reason
from oddlog.scoring.threshold import fit_threshold
from training.dataset import FEATURE_COLUMNS
from training.fit import typical_of

Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]
Progress = Callable[[str, float | None], None]
"""Called with what is being done and the share of it that is done; None where that is not known."""

LEAST_EVENTS = 100
"""Fewer teach nothing about what is usual."""
BATCH = 65_536
"""Rows scored at a time."""

EXPECTED_LINES = "combined or common log lines (Apache, nginx), Filebeat's JSON, or ECS JSON, one event a line"


class Contributor(Protocol):
    """Anything that tells how much each feature carried."""

    def contributions(self, features: Matrix) -> Matrix:
        """[n, d]."""


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Events of a log in its order, FEATURE_COLUMNS and no more: a million stay below half a gigabyte.

    A row's `oddlog.position.offset` is its line's number from 0.
    """

    name: str
    events: pl.DataFrame
    lines: int
    unread: int
    """Lines that are no event; empty ones among them."""
    first_unread: tuple[int, str] | None
    """Number (from 1) and what is wrong with the first of them."""


@dataclass(frozen=True, slots=True)
class ScoredLog:
    """Every event's score, and what is needed to say why. All arrays go row by row with `log.events`."""

    log: ReadLog
    scores: Matrix
    """Float32 [n], higher = more anomalous."""
    severities: npt.NDArray[np.float64]
    """Log10 N of "rarer than one event in N" [n]."""
    threshold: Threshold
    features: Matrix
    """Float32 [n, d], columns FEATURE_NAMES."""
    typical: dict[str, float]
    algorithm: str
    model: str | None
    """What the model is called; None where it was fitted on the log itself."""
    source: Contributor
    novelty: Matrix
    """Float32 [n]: how odd each event is in itself (oddlog/detectors/novelty.py)."""
    novel_parts: Callable[[Matrix], Matrix]
    """What that is made of: contributions [k, d] of features [k, d]."""

    @property
    def odd(self) -> npt.NDArray[np.bool_]:
        """Which events reach the threshold [n]."""
        return self.scores.astype(np.float64) >= self.threshold.value

    def reasons(self, rows: Rows | Sequence[int]) -> list[list[Reason]]:
        """Why the events of these rows are odd, as many lists as rows."""
        chosen = np.ascontiguousarray(self.features[np.asarray(rows, dtype=np.intp)])
        if not len(chosen):
            return []
        return explain(chosen, self.source.contributions(chosen), FEATURE_NAMES, self.typical)


def read_events(
    source: BinaryIO,
    *,
    name: str,
    size: int | None = None,
    progress: Progress | None = None,
    parser: Parser = parse,
) -> ReadLog:
    """Parse a log, plain or packed, a batch at a time. `size`: its bytes, where they are known.

    Raises UsageError where it cannot be unpacked, is empty, or holds no event.
    """
    tell = progress or (lambda _what, _share: None)
    frames: list[pl.DataFrame] = []
    lines = unread = 0
    first: tuple[int, str] | None = None

    def told(done: int) -> None:
        tell(f"reading {name}", min(done / size, 1.0) if size else None)

    for records in records_of(source, name=name, read=told):
        parsed = parser(records)
        lines += len(records)
        unread += parsed.dead.height
        if first is None and parsed.dead.height:
            number, reason = parsed.dead.select("oddlog.position.offset", "reason").row(0)
            first = (number + 1, reason)
        frames.append(parsed.events.select(FEATURE_COLUMNS))
    events = pl.concat(frames) if frames else pl.DataFrame(schema={c: EVENT_SCHEMA[c] for c in FEATURE_COLUMNS})
    if not lines:
        raise UsageError(f"{name} is empty", expected=EXPECTED_LINES)
    if events.is_empty():
        assert first is not None
        raise UsageError(f"none of the {lines:,} lines of {name} is an event; line {first[0]:,}: {first[1]}",
                         expected=EXPECTED_LINES)  # fmt: skip
    return ReadLog(name, events, lines, unread, first)


def score_by_itself(
    log: ReadLog, *, algorithm: str, budget: float, seed: int = 0, progress: Progress | None = None
) -> ScoredLog:
    """Fit baseline and detector on the log, unlabelled as it is, and score it.

    Every event is seen as a newcomer sees the rest: its own behaviour and user agent are left out of the counts.
    Threshold (`budget`: alerts a day) and severities are those of the log itself. Raises UsageError where it has
    fewer than LEAST_EVENTS events, or the algorithm is unknown.
    """
    tell = progress or (lambda _what, _share: None)
    detector = create(algorithm)
    events = log.events
    if events.height < LEAST_EVENTS:
        raise UsageError(
            f"{log.name} holds {events.height} events",
            expected=f"at least {LEAST_EVENTS}, to learn from them what is usual",
            mend="a longer log; or a model that was trained elsewhere: oddlog score FILE --model champion",
        )
    tell(f"learning what is usual among {events.height:,} events", None)
    _, data = fit_features(events)
    tell(f"fitting {algorithm}", None)
    detector.fit(data, seed=seed)
    scores = _in_batches(detector.score, data.features, "scoring", tell)
    second = Novelty().fit(data)
    return ScoredLog(
        log=log,
        scores=scores,
        severities=severity(fit_calibration(scores), scores),
        threshold=fit_threshold(scores, events["source.address"], events["@timestamp"], budget),
        features=data.features,
        typical=typical_of(data),
        algorithm=algorithm,
        model=None,
        source=detector,
        novelty=_in_batches(second.score, data.features, "scoring", tell),
        novel_parts=second.contributions,
    )


def score_by_model(
    log: ReadLog, model: Model, *, name: str, threshold: Threshold | None = None, progress: Progress | None = None
) -> ScoredLog:
    """Score by a trained model, its baseline, calibration and threshold (or the one in force for it)."""
    tell = progress or (lambda _what, _share: None)
    computer = FeatureComputer(model.baseline)
    done, parts = 0, []
    for batch in log.events.iter_slices(BATCH):
        tell("computing features", done / log.events.height)
        parts.append(computer.compute(batch))
        done += batch.height
    features = np.concatenate(parts)
    scores = _in_batches(model.score, features, "scoring", tell)
    novelty, parts_of = model.novelty(features), model.novelty_parts
    if novelty is None:
        own = _channel_of(log.events, features)
        novelty, parts_of = own.score(features), own.contributions
    return ScoredLog(
        log=log,
        scores=scores,
        severities=model.severity(scores),
        threshold=threshold or model.card.threshold,
        features=features,
        typical=dict(model.card.typical),
        algorithm=model.card.algorithm,
        model=name,
        source=model,
        novelty=novelty,
        novel_parts=parts_of,
    )


def with_threshold(scored: ScoredLog, budget: float) -> ScoredLog:
    """The same scores with a threshold learnt from this log for `budget` alerts a day."""
    events = scored.log.events
    novelty = None if scored.threshold.novelty is None else scored.novelty
    threshold = fit_threshold(scored.scores, events["source.address"], events["@timestamp"], budget, novelty=novelty)
    return replace(scored, threshold=threshold)


def _channel_of(events: pl.DataFrame, features: Matrix) -> Novelty:
    """The second channel fitted on a log, for a model that has none."""
    behaviour, client_hour = units_of(events)
    weights = 1.0 / np.bincount(client_hour)[client_hour]
    return Novelty().fit(FitData(features, weights, behaviour, FEATURE_NAMES))


def _in_batches(score: Callable[[Matrix], Matrix], features: Matrix, what: str, tell: Progress) -> Matrix:
    parts = []
    for first in range(0, len(features), BATCH):
        tell(what, first / len(features))
        parts.append(score(features[first : first + BATCH]))
    return np.concatenate(parts)
