"""Flat columns to nested documents and back, for any names; columns chosen and refused."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oddlog.connectors.documents import (
    STORED_SCHEMA,
    check_columns,
    epoch_ms,
    flattened,
    nested,
    nested_schema,
    read_schema,
    unstorable,
    without,
)
from oddlog.events.schema import ANOMALY_SCHEMA, EVENT_SCHEMA, TIMESTAMP

_PARTS = st.text("abcxyz_@0", min_size=1, max_size=3)
_NAMES = st.lists(st.lists(_PARTS, min_size=1, max_size=4).map(".".join), min_size=1, max_size=12, unique=True)


def _conflicting(names: list[str]) -> bool:
    return any(other.startswith(f"{name}.") for name in names for other in names)


@given(names=_NAMES.filter(lambda names: not _conflicting(names)))
def test_nesting_and_flattening_are_each_others_inverse(names: list[str]) -> None:
    frame = pl.DataFrame({name: [place, None] for place, name in enumerate(names)})
    documents = frame.select(pl.struct(nested(names)).alias("document"))
    assert documents.schema["document"] == nested_schema(dict(frame.schema))
    flat = documents.select(flattened(pl.col("document"), name) for name in names)
    assert flat.equals(frame)


@given(names=_NAMES.filter(_conflicting))
def test_a_name_that_is_field_and_object_at_once_is_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="a field and an object at once"):
        nested(names)


def test_the_stored_schema_nests_as_ecs_writes_it() -> None:
    document = nested_schema(dict(pl.Schema(STORED_SCHEMA))).to_schema()
    assert document["@timestamp"] == TIMESTAMP
    assert document["http"].to_schema()["response"].to_schema()["status_code"] == pl.Int32()  # type: ignore[attr-defined]
    assert list(document["oddlog"].to_schema()["position"].to_schema()) == ["epoch", "topic", "partition", "offset"]  # type: ignore[attr-defined]


def test_what_is_read_by_default_is_everything_but_features() -> None:
    assert list(read_schema(None, ["features.a"])) == [*EVENT_SCHEMA, *ANOMALY_SCHEMA]
    assert read_schema(["features.*", "features.b", "_id"], ["features.a"]) == {
        "features.a": pl.Float32(),
        "features.b": pl.Float32(),
        "_id": pl.String(),
    }
    with pytest.raises(ValueError, match="no column 'nope'"):
        read_schema(["nope"], [])


def test_missing_and_unknown_columns_are_both_named() -> None:
    with pytest.raises(ValueError, match=r"lacks b and brings c, d; events have a, b"):
        check_columns(pl.DataFrame({"a": [1], "c": [1], "d": [1], "features.x": [1.0]}), ["a", "b"], ["a", "b"])


@pytest.mark.parametrize(
    ("moment", "ms"),
    [
        (dt.datetime(1970, 1, 1, tzinfo=dt.UTC), 0),
        (dt.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC), 1),
        (dt.datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=dt.UTC), 1),
        (dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC), 0),
        (dt.datetime(1970, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))), 0),
        (dt.datetime(1970, 1, 1, 1), 3_600_000),  # noqa: DTZ001  a naive time is UTC
    ],
)
def test_bounds_are_rounded_up_to_the_millisecond(moment: dt.datetime, ms: int) -> None:
    assert epoch_ms(moment) == ms


def test_unstorable_rows_are_told_apart_by_reason() -> None:
    frame = pl.DataFrame(
        {
            "_id": ["fits", None, "", "x" * 512, "x" * 513, "é" * 256, "é" * 257, "undated"],
            "@timestamp": pl.Series([0] * 7 + [None], dtype=pl.Int64).cast(TIMESTAMP),
        }
    )
    found = unstorable(frame)
    assert sorted(found) == [1, 2, 4, 6, 7]
    assert "513 bytes" in found[4]
    assert "no @timestamp" in found[7]
    assert unstorable(frame.head(0)) == {}


def test_rows_that_remain_know_their_numbers() -> None:
    frame = pl.DataFrame({"n": range(5)})
    kept, numbers = without(frame, [0, 3])
    assert kept["n"].to_list() == numbers == [1, 2, 4]
    everything, numbers = without(frame, [])
    assert everything is frame
    assert numbers == [0, 1, 2, 3, 4]
