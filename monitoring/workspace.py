"""The history in an Evidently workspace, for `evidently ui --workspace ...`: one snapshot a batch. No judging here."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHECKS = uuid.UUID("6f64646c-6f67-5d72-9966-740000000001")


def put_snapshot(folder: Path, project: str, check: str, snapshot: Any) -> str:
    """Write the snapshot of a check into a project, made where it is not there. Returns its id.

    The id follows from the check's, so that the same check again, after a crash too, replaces its snapshot."""
    with _quiet():
        workspace, found = _open(folder, project)
        id = uuid.uuid5(_CHECKS, check)
        workspace.state.write_snapshot(found.id, id, snapshot.to_snapshot_model())
    return str(id)


def remove_snapshots(folder: Path, before: dt.datetime) -> int:
    """Remove the snapshots of every project that were written before a time. Returns how many."""
    found = [file for file in folder.glob("*/snapshots/*.json") if file.stat().st_mtime < before.timestamp()]
    for file in found:
        file.unlink(missing_ok=True)
    return len(found)


def _open(folder: Path, project: str) -> tuple[Any, Any]:
    from evidently.ui.workspace import Workspace

    folder.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.create(str(folder))
    if found := workspace.search_project(project):
        return workspace, found[0]
    made = workspace.create_project(project, "Batches against what was expected of them, by oddlog.")
    _add_panels(made)
    return workspace, made


def _add_panels(project: Any) -> None:
    from evidently.sdk.models import PanelMetric
    from evidently.sdk.panels import line_plot_panel

    share = PanelMetric(metric="DriftedColumnsCount", metric_labels={"value_type": "share"}, legend="share")
    project.dashboard.add_panel(line_plot_panel("Share of columns past their limit, by batch", [share]))
    distance = PanelMetric(metric="ValueDrift", legend="{{column}}")
    project.dashboard.add_panel(line_plot_panel("Distance of each column, in standard deviations", [distance]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
