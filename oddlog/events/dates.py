"""Times as logs write them, to UTC milliseconds, whole columns at once. `parse.py` says whose counts."""

from __future__ import annotations

import polars as pl

from oddlog.events.schema import TIMESTAMP

COMMON = "%d/%b/%Y:%H:%M:%S %z"
"""`17/May/2015:10:05:03 +0000`, of common and combined lines."""

RARER = ("%+", "%d/%b/%Y:%H:%M:%S%.f %z", "%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z")
"""ISO 8601 with `Z`, `+02:00` or `+0200`; common with fractions of a second."""

WITHOUT_ZONE = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f")
"""ISO 8601 without a zone: UTC, as Elasticsearch reads it."""

EPOCH_SECONDS = r"^[0-9]{9,10}(?:\.[0-9]{1,9})?$"
EPOCH_MILLISECONDS = r"^[0-9]{12,13}$"
"""Numbers: nginx's `$msec` (seconds), or milliseconds; both from 1973 on."""


def to_time(texts: pl.Series) -> pl.Series:
    """Datetime[ms, UTC] for each text, null where it is none.

    >>> texts = pl.Series(["17/May/2015:10:05:03 +0200", "2015-05-17T08:05:03Z", "1431849903.5", "no"])
    >>> to_time(texts).to_list()
    [datetime.datetime(2015, 5, 17, 8, 5, 3, ...), datetime.datetime(2015, 5, 17, 8, 5, 3, ...),
     datetime.datetime(2015, 5, 17, 8, 5, 3, 500000, ...), None]
    """
    times = _read(texts, COMMON)
    for form in RARER:
        if not _open(times, texts):
            return times
        times = times.zip_with(times.is_not_null(), _read(texts, form))
    for form in WITHOUT_ZONE:
        if not _open(times, texts):
            return times
        naive = texts.str.to_datetime(form, strict=False, time_unit="ms", time_zone=None)
        times = times.zip_with(times.is_not_null(), naive.dt.replace_time_zone("UTC"))
    if not _open(times, texts):
        return times
    seconds = texts.str.contains(EPOCH_SECONDS).fill_null(False)
    milliseconds = texts.str.contains(EPOCH_MILLISECONDS).fill_null(False)
    numbers = texts.cast(pl.Float64, strict=False) * seconds.replace_strict({True: 1000.0, False: 1.0})
    numbers = numbers.zip_with(seconds | milliseconds, pl.Series([None], dtype=pl.Float64))
    return times.zip_with(times.is_not_null(), numbers.round().cast(pl.Int64).cast(TIMESTAMP))


def _read(texts: pl.Series, form: str) -> pl.Series:
    return texts.str.to_datetime(form, strict=False, time_unit="ms", time_zone="UTC")


def _open(times: pl.Series, texts: pl.Series) -> bool:
    return times.null_count() > texts.null_count()
