"""The port Scorer over HTTP: a typed client of the service, for the consumer and for notebooks."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import numpy.typing as npt
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from oddlog.errors import ScorerError, ScorerUnavailable
from oddlog.features.baseline import Baseline
from oddlog.scoring.scorer import NoveltyScores, Scores
from oddlog.settings import ScorerSettings
from serving.headers import REQUEST_ID, bearer
from serving.wire import ARROW, decode_scores, encode_matrix

log = logging.getLogger(__name__)

CHUNK_ROWS = 16_384
"""A larger matrix goes in several requests, all by one version: below what a service takes by default."""

EXPLAIN_ROWS = 1_000
"""The same for a matrix to explain."""

ROUNDS = 3
"""How often such a matrix is gone through at most, until one threshold has judged all of it."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts: doubled each time, then a random part of it, so that clients do not come in step."""

BASELINES = 4
"""Baselines that are kept, the newest: champion, previous, challenger, and one more."""

FOR_NOW = {429, 502, 503, 504}
"""Statuses that another attempt may change."""


class HttpScorer:
    """Scores over HTTP; connections are kept and reused. Safe to share by threads.

    Tries a request `settings.attempts` times, `settings.timeout` seconds each, where the service is away or has
    no warm model; then raises ScorerUnavailable. Raises ScorerError, at once, where the request is wrong.
    """

    def __init__(self, settings: ScorerSettings) -> None:
        self._settings = settings
        self._baselines: dict[tuple[str, str], Baseline] = {}
        key = settings.api_key
        self._http = httpx.Client(
            base_url=settings.url.rstrip("/"),
            timeout=httpx.Timeout(settings.timeout, connect=min(settings.timeout, 5.0)),
            headers={"user-agent": "oddlog", **({} if key is None else bearer(key.get_secret_value()))},
        )

    def champion(self) -> str | None:
        """The champion's version now; None while nothing is promoted.

        Raises ScorerUnavailable where the service cannot know: the registry is away, or the champion is refused."""
        told = self.models()
        if told["champion"] is not None:
            return str(told["champion"]["version"])
        registry = told["registry"]
        if registry["reachable"] and "champion" not in registry["roles"]:
            return None
        raise ScorerUnavailable(
            f"the scorer has no model: {told['detail']}",
            expected="a warm champion",
            mend=f"{self._url}/v1/models",
        )

    def models(self) -> dict[str, Any]:
        """What the service holds (GET /v1/models). Raises ScorerUnavailable, ScorerError."""
        answer = self._request("GET", "/v1/models")
        try:
            told = answer.json()
            _ = told["champion"], told["challenger"], told["detail"]
            _ = told["registry"]["reachable"], told["registry"]["roles"]
        except (ValueError, KeyError, TypeError):
            raise self._stranger(answer) from None
        assert isinstance(told, dict)
        return told

    def challenger(self) -> str | None:
        """The challenger's version now; None where there is none, or the service refuses it."""
        told = self.models()["challenger"]
        return None if told is None else str(told["version"])

    def baseline(self, version: str) -> Baseline:
        """The baseline a version was fitted with; kept, and asked for again by digest alone.

        Raises ScorerError for a version that the service does not hold."""
        known = {tag: baseline for (of, tag), baseline in self._baselines.items() if of == version}
        headers = {"if-none-match": ", ".join(known)} if known else {}
        answer = self._request("GET", f"/v1/models/{quote(version, safe='')}/baseline", headers=headers)
        tag = answer.headers.get("etag", "")
        if answer.status_code == httpx.codes.NOT_MODIFIED and tag in known:
            return known[tag]
        try:
            baseline = Baseline.from_arrow(answer.content)
        except Exception as error:
            raise self._stranger(answer) from error
        # Replaced as a whole: another thread may be going through it.
        self._baselines = dict([*self._baselines.items(), ((version, tag), baseline)][-BASELINES:])
        return baseline

    def score(self, features: npt.NDArray[np.float32], names: list[str], *, version: str | None = None) -> Scores:
        """Scores of a float32 matrix [n, len(names)] by `version` (None: the champion); n may be 0."""
        return self._in_parts("/v1/score", CHUNK_ROWS, features, names, version)

    def explain(self, features: npt.NDArray[np.float32], names: list[str], *, version: str | None = None) -> Scores:
        """As `score`, with reasons for every row, anomaly or not: the few features that carried its score."""
        return self._in_parts("/v1/explain", EXPLAIN_ROWS, features, names, version)

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def __enter__(self) -> HttpScorer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _in_parts(
        self, path: str, rows: int, features: npt.NDArray[np.float32], names: list[str], version: str | None
    ) -> Scores:
        latest = self._ask(path, features[:rows], names, version)
        if len(features) <= rows:
            return latest
        # The rest by the version that answered first: a swap in between must not mix two models in one batch.
        version, parts = latest.model_version, {0: latest}
        for _ in range(ROUNDS):
            for i in range(0, len(features), rows):
                if i not in parts or _threshold(parts[i]) != _threshold(latest):
                    parts[i] = latest = self._ask(path, features[i : i + rows], names, version)
        return _joined([parts[i] for i in sorted(parts)])

    def _ask(self, path: str, features: npt.NDArray[np.float32], names: list[str], version: str | None) -> Scores:
        answer = self._request(
            "POST",
            path,
            content=encode_matrix(features, names),
            params={} if version is None else {"version": version},
            headers={"content-type": ARROW},
        )
        scores = decode_scores(answer.content)
        if len(scores.score) != len(features):
            raise ScorerError(
                f"{len(scores.score)} scores for {len(features)} rows",
                expected="one a row",
                mend=f"{self._url}/livez",
            )
        return scores

    @property
    def _url(self) -> str:
        return str(self._http.base_url).rstrip("/")

    def _request(self, method: str, path: str, **how: Any) -> httpx.Response:
        """The answer, with a status below 400. Raises ScorerUnavailable after the last attempt, ScorerError.

        Every attempt carries the same id (`x-request-id`), by which the service's log knows the request."""
        how["headers"] = {**how.get("headers", {}), REQUEST_ID: uuid.uuid4().hex}
        attempts = Retrying(
            retry=retry_if_exception_type(ScorerUnavailable),
            stop=stop_after_attempt(self._settings.attempts),
            wait=_pause,
            reraise=True,
        )
        attempt: Callable[[], httpx.Response] = lambda: self._attempt(method, path, **how)  # noqa: E731
        return attempts(attempt)

    def _attempt(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **how)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ScorerError(
                f"scorer URL {self._url!r}: {error}",
                expected="http(s)://host:3000",
                mend="correct ODDLOG_SCORER__URL",
            ) from error
        except httpx.TransportError as error:
            raise ScorerUnavailable(
                f"no answer from the scorer at {self._url}: {type(error).__name__}: {error}",
                expected="a `bentoml serve`",
                mend="bentoml serve, or correct ODDLOG_SCORER__URL",
            ) from error
        if answer.status_code < httpx.codes.BAD_REQUEST:
            return answer
        problem = _problem(answer)
        request_id = answer.request.headers[REQUEST_ID]
        log.debug("%s %s: %d (request %s)", method, path, answer.status_code, request_id)
        if answer.status_code in FOR_NOW:
            raise ScorerUnavailable(f"the scorer cannot answer now: {problem['found']}", **_rest(problem))
        raise ScorerError(f"the scorer refuses (request {request_id}): {problem['found']}", **_rest(problem))

    def _stranger(self, answer: httpx.Response) -> ScorerError:
        return ScorerError(
            f"{answer.request.url} answers what no oddlog service answers",
            expected="a `bentoml serve` of this version",
            mend="correct ODDLOG_SCORER__URL",
        )


def _pause(state: RetryCallState) -> float:
    pause: float = FIRST_PAUSE * 2.0 ** (state.attempt_number - 1)
    return min(LONGEST_PAUSE, pause) * random.uniform(0.5, 1.0)


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("found"), str):
        return document
    return {"found": f"status {answer.status_code}: {answer.text[:200].strip()}"}


def _rest(problem: dict[str, Any]) -> dict[str, str | None]:
    return {"expected": problem.get("expected"), "mend": problem.get("mend")}


def _threshold(part: Scores) -> tuple[str, float, float | None]:
    """What a part was judged by: documents name one threshold for all of them."""
    return part.threshold_version, part.threshold, None if part.novelty is None else part.novelty.threshold


def _joined(parts: list[Scores]) -> Scores:
    """Several answers of one model as one; the last one knows who is champion now."""
    reasons = {}
    start = 0
    for part in parts:
        reasons.update({start + row: some for row, some in part.reasons.items()})
        start += len(part.score)
    last = parts[-1]
    return Scores(
        model_name=last.model_name,
        model_version=last.model_version,
        baseline_digest=last.baseline_digest,
        threshold=last.threshold,
        threshold_version=last.threshold_version,
        champion=last.champion,
        score=np.concatenate([part.score for part in parts]),
        severity=np.concatenate([part.severity for part in parts]),
        is_anomaly=np.concatenate([part.is_anomaly for part in parts]),
        reasons=reasons,
        novelty=_joined_novelty([part.novelty for part in parts]),
    )


def _joined_novelty(parts: list[NoveltyScores | None]) -> NoveltyScores | None:
    """None where one of them has none: the threshold changed in between."""
    some = [part for part in parts if part is not None]
    if len(some) < len(parts):
        return None
    return NoveltyScores(
        threshold=some[-1].threshold,
        score=np.concatenate([part.score for part in some]),
        severity=np.concatenate([part.severity for part in some]),
        is_anomaly=np.concatenate([part.is_anomaly for part in some]),
    )
