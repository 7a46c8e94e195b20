"""Names and types of the columns an event has, from the parser to the stored document (ECS names).

A frame's column `http.request.method` is the document's field of that path; stores nest and flatten.
"""

from __future__ import annotations

import polars as pl

TIMESTAMP = pl.Datetime("ms", "UTC")

POSITION_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "oddlog.position.epoch": pl.String,
    "oddlog.position.topic": pl.String,
    "oddlog.position.partition": pl.Int32,
    "oddlog.position.offset": pl.Int64,
}
"""Where the record stood in its source."""

POSITION_ORDER = list(POSITION_SCHEMA)
"""Sorting by these columns gives the order in which features are computed."""

EVENT_ID = pl.concat_str(list(POSITION_SCHEMA), separator="-").alias("_id")
"""As `record.event_id` makes it, for whole columns: the `_id` of an event's document."""

URL_PATH = pl.col("url.original").str.splitn("?", 2).struct.field("field_0").fill_null("").alias("url.path")
"""The path of a request target: all before its first `?`. Every event's `url.path` is this of its `url.original`."""

EVENT_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "_id": pl.String,
    "@timestamp": TIMESTAMP,
    "source.address": pl.String,  # the client as logged: an address or, rarely, a host name; never null
    "source.ip": pl.String,  # the same where it is an IP address, else null
    "user.name": pl.String,
    "http.request.method": pl.String,  # "" where the request line is garbage
    "url.original": pl.String,  # the request target as logged; the whole request line where it is garbage
    "url.path": pl.String,  # before `?`; never null
    "url.query": pl.String,
    "http.version": pl.String,
    "http.response.status_code": pl.Int32,
    "http.response.body.bytes": pl.Int64,
    "http.request.referrer": pl.String,
    "user_agent.original": pl.String,
    "host.name": pl.String,
    "log.file.path": pl.String,
    "labels.truth": pl.String,  # `benign`, `attack:<name>`, ...: only simulated or labelled traffic has it
    "event.original": pl.String,
    **POSITION_SCHEMA,
}
"""What the parser makes of a record. `-` in a log line is null here."""

REASON = pl.Struct(
    {"feature": pl.String, "value": pl.Float64, "typical": pl.Float64, "share": pl.Float64, "text": pl.String}
)
"""Why an event is odd: a feature, its value, its typical value, its share of the score, and a sentence."""

ANOMALY_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "anomaly.status": pl.String,  # `scored` or `pending`
    "anomaly.score": pl.Float64,
    "anomaly.severity": pl.Float64,  # log10 N of "rarer than one event in N"
    "anomaly.is_anomaly": pl.Boolean,  # over a threshold, and not hushed: an alert
    "anomaly.hushed": pl.String,  # id of the mark by which it is expected and raises no alert; else null
    "anomaly.channel": pl.String,  # who says so, of anomalies alone: `score`, `novelty` or `both`
    "anomaly.threshold": pl.Float64,
    "anomaly.threshold_version": pl.String,
    "anomaly.model.name": pl.String,
    "anomaly.model.version": pl.String,
    "anomaly.baseline": pl.String,  # digest of the baseline that `features.*` were computed under
    "anomaly.reasons": pl.List(REASON),
    # The second channel's, where it finds the event odd; else null.
    "anomaly.novelty.score": pl.Float64,
    "anomaly.novelty.severity": pl.Float64,
    "anomaly.novelty.threshold": pl.Float64,
}
"""What enrichment adds, beside one Float32 column `features.<name>` for every feature."""

BESIDE_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "anomaly.shadow.version": pl.String,  # the challenger's, for a sample of clients: serving/shadow.py
    "anomaly.shadow.score": pl.Float64,
    "anomaly.previous.version": pl.String,  # whose verdict a rescoring replaced: serving/backfill.py
    "anomaly.previous.score": pl.Float64,
}
"""Scores of other models for the same event: added by later updates, never written with the event."""

DEAD_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "_id": pl.String,
    "@timestamp": TIMESTAMP,  # the broker's
    "reason": pl.String,  # what was found and what was expected, in a sentence
    "kind": pl.String,  # a short name that can be counted: `empty`, `no_format`, `bad_json`, ...
    "original": pl.Binary,  # the record's bytes, untouched
    **POSITION_SCHEMA,
}
"""A record that fits no input format, or that the store refuses for good."""

DEAD_KINDS = ("empty", "no_format", "bad_json", "bad_date", "refused")
"""Every kind there is: the parser's, and `refused` for what the store does not take."""

FEATURE_PREFIX = "features."
