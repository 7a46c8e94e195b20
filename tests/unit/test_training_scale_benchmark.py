"""The parts of the benchmarks of large trainings and large files that can be wrong without a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.score import write_log
from benchmarks.training_scale import PARTITIONS, STAGES, documents, stage_of, table


def run(events: int, share: float, factor: float) -> dict[str, Any]:
    return {
        "events": events, "trained_on": int(events * share), "share": share, "limit_mb": 4096,
        "seconds": dict.fromkeys(STAGES, factor), "peaks": dict.fromkeys(STAGES, factor * 1e6),
    }  # fmt: skip


def test_growth_is_a_power_of_the_events_trained_on() -> None:
    lines = table([run(1_000, 1.0, 2.0), run(10_000, 1.0, 20.0), run(1_000_000, 0.1, 20.0)], "seconds").splitlines()
    assert lines[0] == (
        "| events stored: s | 1,000 | 10,000 | 1,000,000, 10 % of the clients | power 1 to 2 | power 2 to 3 |"
    )
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in lines[2:]}
    assert rows["pull"] == ["2.0", "20.0", "20.0", "1.00", "0.00"]
    assert rows["**all**"][:3] == [f"{len(STAGES) * factor:,.1f}" for factor in (2, 20, 20)]


def test_the_peak_of_a_run_is_that_of_its_highest_stage() -> None:
    one = run(1_000, 1.0, 100.0)
    one["peaks"]["fit"] = 700e6
    (whole,) = (line for line in table([one], "peaks").splitlines() if "all" in line)
    assert whole == "| **all** | 700 |"


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("  2,000 of 10,000 events (20 %), 1,000/s, 0:08 left", None),
        ("fitting the baseline on 700 of 1,000 events", "baseline"),
        ("fitting iforest", "fit"),
        ("joined", None),
    ],
)
def test_a_line_begins_a_stage_or_none(line: str, stage: str | None) -> None:
    assert stage_of(line) == stage


def test_the_written_events_are_those_of_a_site_a_client_in_one_partition() -> None:
    (frame,) = documents(300, 1.0, 1_000)
    assert frame.height == frame["_id"].n_unique() == 300
    assert frame["oddlog.position.partition"].n_unique() == PARTITIONS
    pairs = frame.select("source.address", "oddlog.position.partition").unique()
    assert pairs.height == frame["source.address"].n_unique()


def test_the_log_is_the_same_plain_and_compressed(tmp_path: Path) -> None:
    log = write_log(tmp_path, 200, 1.0)
    plain = log.read_bytes()
    assert plain.count(b"\n") == 200
    for suffix in (".gz", ".zst"):
        with pa.input_stream(str(log) + suffix) as unpacked:
            assert unpacked.read() == plain
