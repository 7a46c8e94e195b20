"""Every setting, its default and its meaning. Weakest first: defaults, TOML file, environment, flags.

Environment: `ODDLOG_<GROUP>__<FIELD>`, as in `ODDLOG_STORE__URL=http://127.0.0.1:9200`. The file is the one that
`--config` or `ODDLOG_CONFIG` names, else `oddlog.toml` in the working folder where there is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from oddlog.errors import UsageError

DEFAULT_FILE = "oddlog.toml"
_IN_WORDS = "in_words"

_KEY = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")
"""A bearer token (RFC 6750) that nobody guesses; `openssl rand -base64 32` makes one."""


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True)

    @field_validator("url", check_fields=False)
    @classmethod
    def _can_be_read(cls, url: str) -> str:
        """Raises ValueError for brackets that are no IPv6 address, and for ports that are no number."""
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"}:
            _ = parts.port
        return url


def _checked_keys(keys: SecretStr | None, *, several: bool) -> SecretStr | None:
    """Raises ValueError for what is no key: an empty variable must not open a service that was meant to be closed."""
    if keys is not None:
        found = keys.get_secret_value()
        for key in found.split(",") if several else [found]:
            if not _KEY.fullmatch(key):
                raise ValueError("a key is 16 or more of A-Z a-z 0-9 . _ ~ + / - =; openssl rand -base64 32 makes one")
    return keys


def _text(default: str, pattern: str, in_words: str) -> Any:
    """A field whose text follows a pattern; who gives another is told `in_words`."""
    return Field(default=default, pattern=pattern, json_schema_extra={_IN_WORDS: in_words})


class SourceSettings(_Group):
    """Where raw records come from."""

    url: str = "file:///var/log/nginx/access.log"
    """`kafka://host:port[,host:port]/topic`, or `file:///path/to/access.log` (tailed, rotation survived)."""
    group: str = "oddlog-enrich"
    """Kafka consumer group; for files, the name under which the place is remembered."""
    epoch: str = _text(
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


class StoreSettings(_Group):
    """Where events are written to and trained from."""

    url: str = "sqlite:///mlruns/oddlog.sqlite"
    """`http(s)://elasticsearch:9200`, or `sqlite:///path` (relative with three slashes, absolute with four)."""
    prefix: str = _text("oddlog", r"^[a-z][a-z0-9_]{0,62}$", "1 to 63 of a-z 0-9 _ with a letter first, as in oddlog")
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


class RegistrySettings(_Group):
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


class ScorerSettings(_Group):
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
        return _checked_keys(key, several=False)


class ServeSettings(_Group):
    """The BentoML service itself."""

    workers: int = Field(default=1, ge=1)
    """Processes that score; each holds its own models."""
    poll_seconds: float = Field(default=5.0, gt=0)
    """How often it asks the registry for the champion; jitter of +-20 % is added."""
    max_rows: int = Field(default=65_536, ge=1)
    """Most rows a request may carry."""
    max_bytes: int = Field(default=64_000_000, ge=1_000)
    """Largest request body."""
    explain_rows: int = Field(default=2_000, ge=1)
    """Most rows that one request may have explained: reasons cost more than scores."""
    body_seconds: float = Field(default=30.0, gt=0)
    """Longest time that the body of a request may take to arrive."""
    max_requests: int = Field(default=128, ge=1)
    """Most requests that a worker has under way at once; one more is told to come again."""
    api_key: SecretStr | None = None
    """Key that every request to /v1/ must carry (`Authorization: Bearer KEY`); none: no key is asked for. Two keys with
    a comma between them are both good, while one takes the other's place. /livez, /readyz, /metrics and the OpenAPI
    page are open always."""

    @field_validator("api_key")
    @classmethod
    def _are_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        return _checked_keys(keys, several=True)


class EnrichSettings(_Group):
    """The consumer: source -> parse -> features -> score -> write -> commit."""

    batch_rows: int = Field(default=4_096, ge=1)
    """Most records in one batch."""
    batch_seconds: float = Field(default=0.2, gt=0)
    """Longest wait for the first record of a batch."""
    in_flight: int = Field(default=2, ge=1, le=16)
    """Batches that are written to the store at once, while one more is prepared."""
    lead_in_days: float = Field(default=14.0, gt=0)
    """How far back records are replayed to restore client state: several times the longest decay of a day."""
    retry_seconds: float = Field(default=30.0, gt=0)
    """Longest pause between two attempts at a store that cannot take a batch now."""
    snapshot_seconds: float = Field(default=60.0, gt=0)
    """How often client state is written to the store, so that a restart replays no more than came since."""
    settle_seconds: float = Field(default=30.0, gt=0)
    """How often events that were written as pending under a known baseline are scored after all."""
    max_clients: int = Field(default=1_000_000, ge=1_000)
    """Most clients whose state is kept, of one partition and model: some 300 bytes each. Past it the quarter that was
    least active is forgotten. Training keeps a million: a lower number makes clients look newer than they are."""
    shadow_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the clients whose events the challenger scores, too (`anomaly.shadow.*`). 1: all, and its lane is warm
    when it is promoted; 0: no shadow."""
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port of the consumer's /metrics, /livez and /readyz; none: no such port. 0: any free one, which the log tells."""
    metrics_host: str = "127.0.0.1"
    """Address that port is bound to; in a container `0.0.0.0`."""
    live_seconds: float = Field(default=120.0, gt=0)
    """The consumer counts as live while its loop has moved within so many seconds; longer than any one request."""


class BackfillSettings(_Group):
    """Scoring of stored events: `oddlog backfill`."""

    workers: int = Field(default=4, ge=1)
    """Most partitions that are worked on side by side; each takes a frame of events and its clients' state."""


class TrainSettings(_Group):
    """Training and its evaluation."""

    algorithm: Literal["iforest", "autoencoder", "surprise"] = "iforest"
    """Which detector."""
    budget: str = _text("20/day", r"^\d+(\.\d+)?/day$", "a number of alerts, and /day: as in 20/day")
    """Alerts, distinct (client, hour), that the owner wants to see."""
    fit_share: float = Field(default=0.7, gt=0.1, lt=0.95)
    """Share of the events, oldest first, that baseline and detector are fitted on; the rest calibrates."""
    seed: int = 0
    """Makes a training repeatable."""
    min_events: int = Field(default=1_000, ge=10)
    """Fewer events than this are refused."""
    min_clients: int = Field(default=5, ge=1)
    """Fewer clients than this, in the part that is fitted on, are refused."""
    features: Literal["refit", "stored"] = "refit"
    """`refit`: a new baseline, features computed anew. `stored`: the champion's baseline, and the features that were
    stored under it."""
    exclude_alerted: bool = False
    """Whether clients that were alerted on in the fitted part are left out of baseline and detector."""
    sample: float = Field(default=1.0, gt=0, le=1)
    """Share of the clients, chosen by hash, that is trained on; counts are then over the sample."""
    memory_mb: int = Field(default=4_096, ge=512)
    """Memory that a training may take; events that would need more are sampled by client, and the run says so."""
    parameters: dict[str, dict[str, int | float]] = Field(default_factory=dict)
    """Detector parameters that beat its defaults, by algorithm: `[train.parameters.iforest]`, `trees = 100`."""
    pulls: Path = Path("mlruns/pulls")
    """Where an interrupted pull of events waits for a day to be gone on with."""


class PromoteSettings(_Group):
    """Promotion of a candidate to champion."""

    gates: Path = Path("gates.toml")
    """The gates a candidate must pass."""
    lock_seconds: float = Field(default=900.0, gt=0)
    """A promotion that died gives way after this long."""
    reports: Path = Path("mlruns/promotions")
    """Where the Markdown report of every promotion is written."""


class DriftSettings(_Group):
    """Drift of a batch against what was to be expected of it."""

    limits: Path | None = None
    """File of the limits; none: `drift.toml` in the working folder, else the same limits built in."""
    sample_rows: int = Field(default=20_000, ge=100)
    """Most events of a batch that are read; of more, this many are chosen by position. Counts are made by the store."""
    workspace: Path = Path("mlruns/drift")
    """Where reports are written, HTML and JSON."""
    evidently: Path | None = Path("mlruns/evidently")
    """Workspace with a snapshot of every check, for `evidently ui --workspace`."""
    keep_days: float | None = Field(default=90.0, gt=0)
    """Reports, snapshots and monitoring runs written more than so many days ago are deleted; the documents in the store
    stay."""


class MonitorSettings(_Group):
    """The loop of drift checks: `oddlog monitor`."""

    delay_seconds: float = Field(default=300.0, ge=0)
    """How long after its end a batch is judged: late events are in by then, pending ones scored."""
    catch_up_days: float = Field(default=7.0, gt=0)
    """Missed batches that ended longer ago are passed over."""
    poll_seconds: float = Field(default=30.0, gt=0)
    """Longest pause between two looks at the clock; after a failure, and where another monitor is at work, too."""
    lock_seconds: float = Field(default=900.0, gt=0)
    """A monitor that died gives way after this long; longer than any one check."""
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port of /metrics with the latest drift; none: no such port. 0: any free one, which the log tells."""
    metrics_host: str = "127.0.0.1"
    """Address that port is bound to; in a container `0.0.0.0`."""


class LogSettings(_Group):
    """What the verbs that run for long write to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least that is written; client libraries are held to WARNING at least."""
    format: Literal["text", "json"] = "text"
    """`json`: one JSON object a line, errors and stages included."""


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="ODDLOG_",
        env_nested_delimiter="__",
        extra="forbid",
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
    )

    source: SourceSettings = SourceSettings()
    """Where raw records come from."""
    store: StoreSettings = StoreSettings()
    """Where events are written to and trained from."""
    registry: RegistrySettings = RegistrySettings()
    """Where runs are logged and models registered."""
    scorer: ScorerSettings = ScorerSettings()
    """Who scores."""
    serve: ServeSettings = ServeSettings()
    """The BentoML service."""
    enrich: EnrichSettings = EnrichSettings()
    """The consumer."""
    backfill: BackfillSettings = BackfillSettings()
    """Scoring of stored events."""
    train: TrainSettings = TrainSettings()
    """Training."""
    promote: PromoteSettings = PromoteSettings()
    """Promotion."""
    drift: DriftSettings = DriftSettings()
    """Drift."""
    monitor: MonitorSettings = MonitorSettings()
    """The loop of drift checks."""
    log: LogSettings = LogSettings()
    """Logs of the processes themselves."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        path = config_file()
        if path is not None:
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=path))
        return tuple(sources)


_chosen_file: Path | None = None


def config_file() -> Path | None:
    """The TOML file in force: the one chosen by `load`, by ODDLOG_CONFIG, or `oddlog.toml` here; else None."""
    if _chosen_file is not None:
        return _chosen_file
    if named := os.environ.get("ODDLOG_CONFIG"):
        return Path(named)
    return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None


def load(flags: Mapping[str, Any] | None = None, *, file: Path | None = None) -> Settings:
    """Settings in force; `flags` is a nested mapping that beats everything. Raises UsageError.

    >>> load({"source": {"group": "mine"}}).source.group
    'mine'
    """
    global _chosen_file  # noqa: PLW0603  pydantic-settings asks the class, not the instance, for its sources
    if file is not None:
        _chosen_file = file
    path = config_file()
    if path is not None and not path.is_file():
        raise UsageError(
            f"no settings file at {path}", expected="a TOML file", mend="correct --config or ODDLOG_CONFIG"
        )
    unknown = [name for name in os.environ if name.startswith("ODDLOG_") and not _known_variable(name)]
    if unknown:
        raise UsageError(
            f"the environment has {', '.join(sorted(unknown))}, which no setting reads",
            expected="ODDLOG_<GROUP>__<FIELD>, for example ODDLOG_STORE__URL",
            mend="unset it, or correct its name: without it, oddlog config lists every setting",
        )
    try:
        return Settings(**(flags or {}))
    except ValidationError as error:
        raise _unusable(error) from None
    except SettingsError as error:
        raise UsageError(f"the environment cannot be read: {error}", expected="ODDLOG_<GROUP>__<FIELD>") from None
    except (ValueError, OSError) as error:
        raise UsageError(f"settings cannot be read from {path}: {error}", expected="a TOML file in UTF-8") from None


def _unusable(error: ValidationError) -> UsageError:
    """The first setting that is wrong. A value that may be a secret, one under a misspelt name too, is not shown."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    mend = f"correct {where} in the settings file, or ODDLOG_{where.upper().replace('.', '__')}, or the flag for it"
    if first["type"] == "extra_forbidden":
        group = Settings.model_fields.get(str(first["loc"][0]))
        known = Settings.model_fields if group is None else _fields(group.annotation)
        return UsageError(f"there is no setting {where}", expected=f"one of {', '.join(known)}", mend=mend)
    hidden = len(first["loc"]) == 1 or "password" in where or "key" in where
    found = "" if hidden else f" (found {without_credentials(repr(first.get('input')))})"
    if first["type"] == "string_pattern_mismatch" and (expected := _in_words(first["loc"])):
        found = without_credentials(repr(first["input"]))
        return UsageError(f"setting {where} is {found}", expected=expected, mend=mend)
    return UsageError(f"setting {where}: {first['msg']}{found}", mend=mend)


def _in_words(place: Sequence[int | str]) -> str | None:
    """What the text of a field looks like, where it says so."""
    fields: Mapping[str, FieldInfo] = Settings.model_fields
    for part in place[:-1]:
        group = fields.get(str(part))
        if group is None or not isinstance(group.annotation, type):
            return None
        fields = _fields(group.annotation)
    extra = fields[str(place[-1])].json_schema_extra if str(place[-1]) in fields else None
    return str(extra[_IN_WORDS]) if isinstance(extra, dict) and _IN_WORDS in extra else None


def _known_variable(name: str) -> bool:
    if name == "ODDLOG_CONFIG":
        return True
    parts = name.removeprefix("ODDLOG_").lower().split("__")
    group = Settings.model_fields.get(parts[0])
    if group is None:
        return False
    return len(parts) == 1 or (len(parts) == 2 and parts[1] in _fields(group.annotation))


def _fields(group: Any) -> Mapping[str, FieldInfo]:
    assert isinstance(group, type)
    assert issubclass(group, BaseModel)
    return group.model_fields


def without_credentials(text: str) -> str:
    """A text with every URL in it shown without user and password.

    >>> without_credentials("no answer from https://me:hunter2@mlflow:5000/health")
    'no answer from https://mlflow:5000/health'
    """
    return re.sub(r"(?<=://)[^/\s@]+@", "", text)
