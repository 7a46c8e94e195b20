"""Which connector a URL names: source, store, registry. A client library is imported only once it is named."""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from oddlog.errors import UsageError
from oddlog.settings import without_credentials

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from oddlog.connectors.registry import Registry
    from oddlog.connectors.source import PartitionState, Source
    from oddlog.connectors.store import Store
    from oddlog.settings import RegistrySettings, SourceSettings, StoreSettings

_EXPECTED = {
    "source": "kafka://broker:9092/logs.raw or file:///var/log/nginx/access.log",
    "store": "http(s)://elasticsearch:9200 or sqlite:///mlruns/oddlog.sqlite",
}


def open_source(settings: SourceSettings) -> Source:
    """The source that `settings.url` names: `kafka://host:port[,host:port]/topic` or `file:///path`.

    Raises UsageError for another scheme, and what the source does."""
    match urlsplit(settings.url).scheme:
        case "kafka":
            from oddlog.connectors.kafka import KafkaSource

            return KafkaSource(settings)
        case "file":
            from oddlog.connectors.files import FileSource

            return FileSource(settings)
        case other:
            raise _no_connector("source", settings.url, other)


def source_state(settings: SourceSettings) -> list[PartitionState]:
    """Every partition of the source that `settings.url` names, in order; none where the topic or file is not there.

    Raises UsageError for another scheme or a wrong URL, SourceError where the source cannot be asked."""
    match urlsplit(settings.url).scheme:
        case "kafka":
            from oddlog.connectors.kafka_state import topic_state

            return topic_state(settings)
        case "file":
            from oddlog.connectors.file_state import file_state

            return file_state(settings)
        case other:
            raise _no_connector("source", settings.url, other)


def open_store(settings: StoreSettings) -> Store:
    """The store that `settings.url` names: `http(s)://host:9200` or `sqlite:///path`.

    Raises UsageError for another scheme."""
    match urlsplit(settings.url).scheme:
        case "http" | "https":
            from oddlog.connectors.elastic import ElasticStore

            return ElasticStore(settings)
        case "sqlite":
            from oddlog.connectors.sqlite import SqliteStore

            return SqliteStore(settings)
        case other:
            raise _no_connector("store", settings.url, other)


def using_store(settings: StoreSettings, store: Store | None = None) -> AbstractContextManager[Store]:
    """For a `with`: a store that somebody else holds open, or else the one that `settings` name, closed at its end."""
    return nullcontext(store) if store is not None else closing(open_store(settings))


def denied_by_store(settings: StoreSettings) -> list[str]:
    """What the user of `settings` may not do there although oddlog does it, in words; none where all is allowed.

    Raises UsageError for another scheme, StoreUnavailable, StoreRefused for a user that is not known."""
    if urlsplit(settings.url).scheme not in {"http", "https"}:
        return []  # a file's owner may do everything, or nothing, which is said where it is opened
    from oddlog.connectors.elastic_connection import ElasticConnection
    from oddlog.connectors.elastic_privileges import denied

    with closing(ElasticConnection(settings)) as connection:
        return denied(connection, settings.prefix)


def open_registry(settings: RegistrySettings) -> Registry:
    """The registry at `settings.url`. Raises UsageError for a URL of another scheme."""
    from oddlog.connectors.mlflow_registry import MlflowRegistry

    return MlflowRegistry(settings)


def _no_connector(part: Literal["source", "store"], url: str, scheme: str) -> UsageError:
    return UsageError(
        f"{part} URL {without_credentials(url)!r} has the scheme {scheme!r}",
        expected=_EXPECTED[part],
        mend=f"set ODDLOG_{part.upper()}__URL, or [{part}] url in oddlog.toml",
    )
