"""What every `oddlog demo` must have come to, whatever log and servers it was given."""

from __future__ import annotations

from typing import Any


def check_demo(summary: dict[str, Any], *, lines: int, dead: int) -> None:
    """Everything that arrived is scored once, or a dead letter; three algorithms are runs, one of them is champion."""
    assert summary["lines"] == lines
    assert summary["dead_letters"] == dead
    assert summary["scored"] == lines - dead
    assert summary["pending"] == 0
    assert summary["duplicates"] == 0
    assert sorted(run["algorithm"] for run in summary["runs"]) == ["autoencoder", "iforest", "surprise"]
    assert len({run["run_id"] for run in summary["runs"]}) == 3
    champion = [run for run in summary["runs"] if run["version"] == summary["champion"]["version"]]
    assert [run["algorithm"] for run in champion] == [summary["champion"]["algorithm"]]
    assert summary["backfilled"] + summary["scored_live"] == summary["scored"]
    assert summary["scored_live"] > 0
    assert summary["oddest_clients"][0]["reasons"]
    assert all(seconds >= 0 for seconds in summary["seconds"].values())
