"""Settings of what lies outside: source, store, registry, scorer. Those of our own verbs are in `settings_verbs.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from oddlog.settings_group import Group, checked_keys, text


class SourceSettings(Group):
    """Where raw records come from."""

    url: str = "file:///var/log/nginx/access.log"
    """`kafka://host:port[,host:port]/topic`, or `file:///path/to/access.log` (tailed, rotation survived)."""
    group: str = "oddlog-enrich"
    """Kafka consumer group; for files, the name under which the place is remembered."""
    epoch: str = text(
        "e1", r"^[a-z0-9][a-z0-9_.]{0,31}$", "1 to 32 of a-z 0-9 _ . with a letter or digit first, as in e2"
    )
    """First part of every document id. Change it when a topic was deleted and made anew: offsets start again."""
    state_dir: Path = Path("mlruns/places")
    """Where file sources remember how far they have read."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Kafka's own setting of that name."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """Kafka's own setting of that name."""
    username: str | None = None
    """SASL user."""
    password: SecretStr | None = None
    """SASL password."""
    ca_file: Path | None = None
    """PEM file with the authorities to trust for TLS to the brokers."""
    max_poll_interval_ms: int = Field(default=300_000, ge=1_000)
    """Kafka's own setting of that name: a consumer silent for longer loses its partitions."""
    session_timeout_ms: int = Field(default=10_000, ge=1_000)
    """Kafka's own setting of that name: a consumer that died is noticed after this long. Brokers allow 6 s up."""


class StoreSettings(Group):
    """Where events are written to and trained from."""

    url: str = "sqlite:///mlruns/oddlog.sqlite"
    """`http(s)://elasticsearch:9200`, or `sqlite:///path` (relative with three slashes, absolute with four)."""
    prefix: str = text("oddlog", r"^[a-z][a-z0-9_]{0,62}$", "1 to 63 of a-z 0-9 _ with a letter first, as in oddlog")
    """First part of every index name: `<prefix>-events-YYYY.MM.DD`, `<prefix>-dead`, `<prefix>-drift`, ..."""
    username: str | None = None
    """Elasticsearch user."""
    password: SecretStr | None = None
    """Elasticsearch password."""
    api_key: SecretStr | None = None
    """Elasticsearch API key, instead of user and password."""
    ca_file: Path | None = None
    """PEM file with the authorities to trust for TLS to Elasticsearch."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds a request may take."""
    keep_days: int | None = Field(default=None, ge=0)
    """Days of events before today (UTC) that Elasticsearch's own lifecycle keeps; none: it deletes nothing. Where there
    is no lifecycle, and in SQLite, days go by `oddlog retention` alone."""
    bulk_bytes: int = Field(default=8_000_000, ge=10_000)
    """Largest body of one bulk request; a 413 splits further."""


class RegistrySettings(Group):
    """Where runs are logged and models registered: MLflow."""

    url: str = "sqlite:///mlruns/mlflow.db"
    """MLflow's tracking and registry URI: `sqlite:///mlruns/mlflow.db`, or `http(s)://mlflow:5000`."""
    artifacts: str = "mlruns/artifacts"
    """Folder (or URI) for artifacts of an embedded registry; a server has its own."""
    experiment: str = "oddlog"
    """MLflow experiment that training logs to; monitoring logs to `<experiment>-monitoring`."""
    model: str = "oddlog"
    """Name of the registered model."""
    cache_dir: Path = Path("mlruns/cache")
    """Verified artifacts, by version: a scorer can start from here while the registry is away."""


class ScorerSettings(Group):
    """Who scores: the BentoML service, or this process."""

    url: str = "http://127.0.0.1:3000"
    """`http(s)://host:3000` of a `bentoml serve`, or `local:` to score in this process."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds a request may take."""
    attempts: int = Field(default=3, ge=1)
    """Tries of a request before the scorer counts as away, and events are written as pending."""
    api_key: SecretStr | None = None
    """The key that the service asks for (`serve.api_key`)."""

    @field_validator("api_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        return checked_keys(key, several=False)
