"""Old reports removed: files, Evidently snapshots, MLflow runs. The documents in the store stay: they are history."""

from __future__ import annotations

import datetime as dt

from monitoring.workspace import remove_snapshots
from oddlog.connectors.mlflow_monitoring import delete_monitoring
from oddlog.settings import Settings


def prune(settings: Settings, now: dt.datetime) -> dict[str, int]:
    """Remove what was written more than `drift.keep_days` ago; how many of each kind. Raises RegistryError."""
    keep_days = settings.drift.keep_days
    if keep_days is None:
        return {"files": 0, "snapshots": 0, "runs": 0}
    before = now - dt.timedelta(days=keep_days)
    files = 0
    for pattern in ("*.html", "*.json"):
        for file in settings.drift.workspace.glob(pattern):
            if file.stat().st_mtime < before.timestamp():
                file.unlink(missing_ok=True)
                files += 1
    folder = settings.drift.evidently
    return {
        "files": files,
        "snapshots": remove_snapshots(folder, before) if folder is not None else 0,
        "runs": delete_monitoring(settings.registry, before),
    }
