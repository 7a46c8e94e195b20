"""A person's word before promotion: a tag on the version, and where it is set. Who is promoted is in `promote.py`.

The tag proves nobody's identity: whoever may write to the registry may write any name (docs/promotion.md).
"""

from __future__ import annotations

from urllib.parse import quote

from oddlog.connectors.registry import ModelVersion
from oddlog.errors import CheckFailed
from oddlog.settings import RegistrySettings

APPROVAL_TAG = "approved_by"
WAITING = "waiting_for_approval"
"""Status of a version that passed every gate, and that nobody has approved yet."""


def approved_by(version: ModelVersion) -> str:
    """Whose name the version's tag has; "" where there is none."""
    return version.tags.get(APPROVAL_TAG, "").strip()


def version_page(settings: RegistrySettings, version: str) -> str:
    """Where a person finds the version in MLflow's own pages.

    >>> version_page(RegistrySettings(url="http://mlflow:5000/"), "7")
    'http://mlflow:5000/#/models/oddlog/versions/7'
    >>> version_page(RegistrySettings(url="sqlite:///mlruns/mlflow.db"), "7")
    'http://127.0.0.1:5000/#/models/oddlog/versions/7 (mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db)'
    """
    page = f"/#/models/{quote(settings.model, safe='')}/versions/{version}"
    if settings.url.startswith(("http://", "https://")):
        return settings.url.rstrip("/") + page
    return f"http://127.0.0.1:5000{page} (mlflow ui --backend-store-uri {settings.url})"


def not_approved(settings: RegistrySettings, version: str, *, dry_run: bool = False) -> CheckFailed:
    """The error that says that a version waits, and for what."""
    waits = "would wait" if dry_run else "waits, as challenger,"
    return CheckFailed(
        f"version {version} passed the gates and {waits} for approval",
        expected=f"its tag {APPROVAL_TAG} with the name of who approves it",
        mend=f"set the tag {APPROVAL_TAG} at {version_page(settings, version)}; then oddlog promote --require-approval",
    )
