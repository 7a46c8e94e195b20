"""Which connector a URL names: source, store, registry. A client library is imported only once it is named."""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from oddlog.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from oddlog.connectors.registry import Registry
    from oddlog.connectors.source import Source
    from oddlog.connectors.store import Store
    from oddlog.settings import RegistrySettings, SourceSettings, StoreSettings


def open_source(settings: SourceSettings) -> Source:
    """The source that `settings.url` names: `kafka://host:port[,host:port]/topic` or `file:///path`.

    Raises UsageError for another scheme."""
    scheme = urlsplit(settings.url).scheme
    if scheme == "kafka":
        from oddlog.connectors.kafka import KafkaSource

        return KafkaSource(settings)
    if scheme == "file":
        from oddlog.connectors.files import FileSource

        return FileSource(settings)
    raise UsageError(
        f"source URL {settings.url!r} has the scheme {scheme!r}",
        expected="kafka://broker:9092/logs.raw or file:///var/log/nginx/access.log",
        mend="set ODDLOG_SOURCE__URL, or [source] url in oddlog.toml",
    )


def open_store(settings: StoreSettings) -> Store:
    """The store that `settings.url` names: `http(s)://host:9200` or `sqlite:///path`.

    Raises UsageError for another scheme."""
    scheme = urlsplit(settings.url).scheme
    if scheme in {"http", "https"}:
        from oddlog.connectors.elastic import ElasticStore

        return ElasticStore(settings)
    if scheme == "sqlite":
        from oddlog.connectors.sqlite import SqliteStore

        return SqliteStore(settings)
    raise UsageError(
        f"store URL {settings.url!r} has the scheme {scheme!r}",
        expected="http(s)://elasticsearch:9200 or sqlite:///mlruns/oddlog.sqlite",
        mend="set ODDLOG_STORE__URL, or [store] url in oddlog.toml",
    )


def using_store(settings: StoreSettings, store: Store | None = None) -> AbstractContextManager[Store]:
    """For a `with`: a store that somebody else holds open, or else the one that `settings` name, closed at its end."""
    return nullcontext(store) if store is not None else closing(open_store(settings))


def open_registry(settings: RegistrySettings) -> Registry:
    """The registry at `settings.url`."""
    from oddlog.connectors.mlflow_registry import MlflowRegistry

    return MlflowRegistry(settings)
