"""Alerts of events: every (client, hour) with an anomaly, and the behaviour that it shows. Whoever tells of them words
them; thresholds and budgets are `threshold.py`'s.
"""

from __future__ import annotations

import polars as pl

from oddlog.features.keys import template_of

BEHAVIOUR_BETWEEN = "\n"
"""Between the templates of a behaviour; in no path of a log line."""


def client_hours(events: pl.DataFrame) -> pl.DataFrame:
    """Of every event [n] its `client`, its `hour` (of its own time, UTC) and the `template` of its path."""
    return events.select(
        pl.col("source.address").alias("client"),
        pl.col("@timestamp").dt.truncate("1h").alias("hour"),
        template_of(pl.col("url.path").fill_null("")).alias("template"),
    )


def alerts_of(anomalies: pl.DataFrame) -> pl.DataFrame:
    """The alerts that anomalies make, in any order.

    `anomalies`: the columns of `client_hours`, `severity` (Float64) and `row` (which event it is; any type that sorts).
    Of an alert: `client`, `hour`, `odd` (its anomalies), `severity` (its highest), `row` (of the event with that, the
    first of equals) and `behaviour`: the distinct templates that its anomalies ask for, sorted, a line each. Alerts of
    one behaviour are like ones, whoever shows it and however often.

    >>> frame = pl.DataFrame({"client": "a", "hour": 10, "template": ["/x", "/b", "/x"], "severity": [1.0, 3.0, 3.0],
    ...                       "row": [0, 1, 2]})
    >>> alerts_of(frame).rows()
    [('a', 10, 3, 3.0, 1, '/b\\n/x')]
    """
    return anomalies.group_by("client", "hour").agg(
        pl.len().alias("odd"),
        pl.col("severity").max(),
        pl.col("row").sort_by("severity", "row", descending=[True, False]).first(),
        pl.col("template").unique().sort().str.join(BEHAVIOUR_BETWEEN).alias("behaviour"),
    )
