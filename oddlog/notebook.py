"""For notebooks: a period as a frame, its features, a registered model's scores with reasons, and plots of them.

Frames are polars' (`.to_pandas()` makes them pandas') with the flat column names of documents. What is underneath is
public, too: stores and registry in `oddlog.connectors`, models in `oddlog.scoring`, features in `oddlog.features`.
docs/notebook.md walks through all of it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from oddlog.connectors.by_url import using_store
from oddlog.connectors.models import FoundModel, find_model
from oddlog.connectors.store import EventQuery
from oddlog.errors import UsageError
from oddlog.events.logstream import records_of
from oddlog.events.privacy import reader_of
from oddlog.events.schema import FEATURE_PREFIX
from oddlog.features.baseline import Baseline
from oddlog.features.compute import FeatureComputer
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.scoring.explanation import explain
from oddlog.scoring.threshold import anomalies
from oddlog.settings import Settings, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["alerts", "features", "model", "period", "plot_client", "plot_scores", "read_log", "reasons", "score"]

Time = str | dt.datetime | None
"""A moment, UTC unless it names a zone: "2026-11-01", "2026-11-01T12:00+01:00", a datetime."""

SCORE, SEVERITY, IS_ANOMALY = "anomaly.score", "anomaly.severity", "anomaly.is_anomaly"
_CLIENT, _TIME = "source.address", "@timestamp"
_COLUMNS = [FEATURE_PREFIX + name for name in FEATURE_NAMES]


def period(
    since: Time = None,
    until: Time = None,
    *,
    clients: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    settings: Settings | None = None,
) -> pl.DataFrame:
    """Stored events, since <= @timestamp < until, sorted by position: the order in which features are computed.

    `columns`: default the event's and the verdict's; "features.*" asks for the features that were stored. `settings`:
    default those in force (environment, oddlog.toml). All of it is held in memory. Raises UsageError, StoreError."""
    query = EventQuery(since=_moment(since), until=_moment(until), clients=tuple(clients) if clients else None)
    with using_store((settings or load()).store) as store:
        frames = list(store.read_events(query, columns=columns, order="position"))
    if not frames:
        raise UsageError(
            f"no event from {since or 'the first'} to {until or 'the last'}",
            expected="a period that the store holds events of",
            mend="oddlog doctor",
        )
    return pl.concat(frames, how="diagonal_relaxed")


def read_log(path: str | Path, *, settings: Settings | None = None) -> pl.DataFrame:
    """Events of a log file (plain, .gz, .zst) in its order; lines that are none are left out.

    Read as the consumer would with these settings (default: those in force). Raises OSError, and UsageError where
    nothing in it is an event."""
    parse = reader_of((settings or load()).privacy).parse
    with Path(path).open("rb") as log:
        frames = [parse(records).events for records in records_of(log, name=str(path))]
    events = pl.concat(frames) if frames else pl.DataFrame()
    if events.is_empty():
        raise UsageError(f"no line of {path} is an event", expected="a log of a web server, or a shipper's JSON lines")
    return events


def model(name: str = "champion", *, settings: Settings | None = None) -> FoundModel:
    """A registered version by its alias ("champion") or number ("7"), or one in a folder.

    Raises UsageError, RegistryError, ArtifactError."""
    return find_model((settings or load()).registry, name)


def features(
    events: pl.DataFrame, baseline: FoundModel | Baseline, *, before: pl.DataFrame | None = None
) -> pl.DataFrame:
    """`events` (columns of EVENT_SCHEMA, record order) with one Float32 column `features.<name>` for each feature.

    `before`: events just before them; the clients' state is built up on those, as the consumer's is. Without them every
    client is new at the first of `events`. Features that are there already are replaced."""
    computer = FeatureComputer(baseline if isinstance(baseline, Baseline) else baseline.model.baseline)
    if before is not None and before.height:
        computer.compute(before)
    matrix = computer.compute(events)
    return events.drop(_COLUMNS, strict=False).hstack(
        [pl.Series(name, matrix[:, i]) for i, name in enumerate(_COLUMNS)]
    )


def score(events: pl.DataFrame, found: FoundModel, *, before: pl.DataFrame | None = None) -> pl.DataFrame:
    """`events` with features under the model's baseline, and its verdict: `anomaly.score` (higher = more anomalous),
    `anomaly.severity` (log10 N of "rarer than one event in N"), `anomaly.is_anomaly` by the thresholds in force
    of either channel.

    A verdict that was stored is replaced: this is the model's own, computed here."""
    with_features = features(events, found, before=before)
    matrix = with_features.select(_COLUMNS).to_numpy()
    scores = found.model.score(matrix)
    odd, _ = anomalies(found.threshold or found.model.card.threshold, scores, found.model.novelty(matrix))
    verdict = [
        pl.Series(SCORE, scores.astype(np.float64)),
        pl.Series(SEVERITY, found.model.severity(scores)),
        pl.Series(IS_ANOMALY, odd),
    ]
    return with_features.drop([one.name for one in verdict], strict=False).hstack(verdict)


def reasons(scored: pl.DataFrame, found: FoundModel) -> pl.DataFrame:
    """Why events of `score` are as odd as they are: a row for each of the few features that carried a score.

    Columns `_id`, `feature`, `value`, `typical`, `share` (of the score), `text`. Rows without a reason give none."""
    rows = np.ascontiguousarray(scored.select(_COLUMNS).to_numpy().astype(np.float32))
    names = found.model.card.feature_names
    explained = explain(rows, found.model.contributions(rows), names, found.model.card.typical)
    ids = scored["_id"].to_list()
    flat = [{"_id": id, **reason} for id, some in zip(ids, explained, strict=True) for reason in some]
    schema = {"_id": pl.String, "feature": pl.String, "value": pl.Float64, "typical": pl.Float64,
              "share": pl.Float64, "text": pl.String}  # fmt: skip
    return pl.DataFrame(flat, schema=schema)


def alerts(scored: pl.DataFrame) -> pl.DataFrame:
    """The alerts, a (client, UTC hour) with an anomaly each; the most severe first. A budget counts like ones once.

    Columns `source.address`, `hour`, `requests`, `anomalies`, `severity` (the highest)."""
    hour = pl.col(_TIME).dt.truncate("1h").alias("hour")
    counted = scored.group_by(_CLIENT, hour).agg(
        pl.len().alias("requests"),
        pl.col(IS_ANOMALY).sum().alias("anomalies"),
        pl.col(SEVERITY).max().alias("severity"),
    )
    return counted.filter(pl.col("anomalies") > 0).sort("severity", _CLIENT, "hour", descending=[True, False, False])


def plot_scores(scored: pl.DataFrame, found: FoundModel) -> Figure:
    """How often each score occurs (log scale), with the threshold."""
    figure, axes = _figure(f"Scores by {found.name}")
    axes.hist(scored[SCORE].to_numpy(), bins=80, color="#4c72b0")
    limit = _threshold(found)
    axes.axvline(limit, color="#c44e52", linestyle="--", label=f"threshold {limit:.4g}")
    axes.set_yscale("log")
    axes.set_xlabel("score (higher = more anomalous)")
    axes.set_ylabel("events")
    axes.legend()
    return figure


def plot_client(scored: pl.DataFrame, client: str) -> Figure:
    """A client's requests over time by severity, anomalies marked. Raises UsageError where it made none."""
    own = scored.filter(pl.col(_CLIENT) == client)
    if own.is_empty():
        raise UsageError(f"no request of {client} in these events", expected="a client of theirs, as `alerts` names it")
    figure, axes = _figure(f"{client}: {own.height:,} requests")
    for odd, colour, name in ((False, "#4c72b0", "requests"), (True, "#c44e52", "anomalies")):
        some = own.filter(pl.col(IS_ANOMALY) == odd)
        if some.height:
            axes.scatter(some[_TIME].to_numpy(), some[SEVERITY].to_numpy(), s=12, color=colour, label=name)
    axes.set_xlabel("time (UTC)")
    axes.set_ylabel("severity: rarer than one event in 10^y")
    figure.autofmt_xdate()
    axes.legend()
    return figure


def _figure(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")  # no pyplot: nothing is left open in the notebook's process
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _threshold(found: FoundModel) -> float:
    return (found.threshold or found.model.card.threshold).value


def _moment(time: Time) -> dt.datetime | None:
    if isinstance(time, str):
        try:
            time = dt.datetime.fromisoformat(time)
        except ValueError:
            raise UsageError(f"{time!r} is no time", expected="ISO-8601, as 2026-11-01 or 2026-11-01T12:00Z") from None
    if time is None or time.tzinfo is not None:
        return time
    return time.replace(tzinfo=dt.UTC)
