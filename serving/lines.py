"""Raw log lines, scored for a person: parse, features under a fresh client state, score. The stream is enrich.py's."""

from __future__ import annotations

from typing import Any

from oddlog.errors import ScorerError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.events.privacy import without_queries
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.local import score_with
from oddlog.scoring.scorer import Scores
from oddlog.scoring.shelf import Held
from serving.reasons import with_reasons

_OFFSET = "oddlog.position.offset"


def split_lines(body: bytes) -> list[bytes]:
    """The lines of a text body, without line ends; a last line needs none.

    >>> split_lines(b"a\\r\\nb\\n")
    [b'a', b'b']
    """
    lines = [line.removesuffix(b"\r") for line in body.split(b"\n")]
    return lines[:-1] if not lines[-1] else lines


def score_lines(
    lines: list[bytes], held: Held, champion: str, model_name: str, *, reasons_for_all: bool = False
) -> tuple[Scores, list[dict[str, Any]]]:
    """The scores of the lines that parse, and one answer a line, in order; reasons for anomalies, or for all.

    Client state begins empty and ends with the request: only what a client did in these lines counts. So a line
    alone scores lower than the same line in the stream, where the client's last day is known.
    Nothing is stored: the answer names client and request as they came.
    """
    parsed = parse(records_from_lines(lines))
    privacy = held.model.card.privacy
    known = without_queries(parsed.events) if privacy is not None and privacy.queries else parsed.events
    features = FeatureComputer(held.model.baseline).compute(known)
    scores = score_with(held, champion, model_name, features, list(FEATURE_NAMES))
    if reasons_for_all:
        scores = with_reasons(scores, held, features)
    answers: dict[int, dict[str, Any]] = {}
    events = parsed.events.select(_OFFSET, "source.address", "http.request.method", "url.original").iter_rows()
    for row, (offset, client, method, url) in enumerate(events):
        answers[offset] = {
            "line": offset + 1,
            "status": "scored",
            "client": client,
            "request": f"{method} {url}" if method else url,
            "score": float(scores.score[row]),
            "severity": float(scores.severity[row]),
            "is_anomaly": bool(scores.is_anomaly[row]),
            "reasons": scores.reasons.get(row, []),
        }
    for offset, kind, reason in parsed.dead.select(_OFFSET, "kind", "reason").iter_rows():
        answers[offset] = {"line": offset + 1, "status": "unparseable", "kind": kind, "reason": reason}
    if len(answers) != len(lines):  # the parser's promise: every record is an event or a dead letter
        raise ScorerError(f"{len(lines)} lines gave {len(answers)} answers", expected="one a line")
    return scores, [answers[number] for number in range(len(lines))]
