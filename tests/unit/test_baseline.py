"""A baseline's bytes and digest: what they hold, and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from oddlog.errors import ArtifactError
from oddlog.events.logfile import records_from_lines
from oddlog.events.parse import parse
from oddlog.features.baseline import Baseline
from oddlog.features.fitting import fit_baseline


def events(count: int = 60) -> pl.DataFrame:
    lines = [
        f'192.0.2.{n % 9} - - [02/Mar/2026:1{n % 4}:00:{n % 60:02d} +0000] "GET /p/{n % 5}?q=ä{n} HTTP/1.1" '
        f'{404 if n % 7 == 0 else 200} 12 "-" "agent {n % 25}"'.encode()
        for n in range(count)
    ]
    return parse(records_from_lines(lines)).events


def test_the_digest_tells_contents_apart_and_nothing_else() -> None:
    baseline = fit_baseline(events()).baseline
    assert fit_baseline(events()).baseline.digest == baseline.digest
    assert fit_baseline(events()[:-1]).baseline.digest != baseline.digest
    assert len(baseline.digest) == 64


def test_the_order_of_rows_within_an_hour_changes_no_count() -> None:
    baseline, shuffled = (
        fit_baseline(events()).baseline,
        fit_baseline(events().sample(fraction=1.0, shuffle=True, seed=1)).baseline,
    )
    assert shuffled.path.keys.to_list() == baseline.path.keys.to_list()
    np.testing.assert_array_equal(shuffled.path.counts, baseline.path.counts)
    np.testing.assert_array_equal(shuffled.token.counts, baseline.token.counts)
    np.testing.assert_allclose(shuffled.company_total, baseline.company_total)


def test_entries_count_keys_and_pairs() -> None:
    baseline = fit_baseline(events()).baseline
    assert baseline.entries > len(baseline.token.keys) + len(baseline.path.keys)


def test_tables_changed_afterwards_are_refused() -> None:
    table = pa.ipc.open_stream(fit_baseline(events()).baseline.to_arrow()).read_all()
    counts = table["path.counts"].combine_chunks()[0].values.to_numpy() + 1
    changed = pa.LargeListArray.from_arrays(pa.array([0, len(counts)], type=pa.int64()), pa.array(counts))
    place = table.column_names.index("path.counts")
    table = table.set_column(place, "path.counts", changed).replace_schema_metadata(table.schema.metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ArtifactError, match="digest"):
        Baseline.from_arrow(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("data", [b"", b"nonsense", b"ARROW1\x00\x00"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        Baseline.from_arrow(data)


def test_a_truncated_baseline_is_refused() -> None:
    data = fit_baseline(events()).baseline.to_arrow()
    with pytest.raises(ArtifactError):
        Baseline.from_arrow(data[: len(data) // 2])


def test_another_arrow_stream_is_refused() -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({"a": [1]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ArtifactError, match="format"):
        Baseline.from_arrow(sink.getvalue().to_pybytes())
