"""`oddlog setup`: the topic, the index templates or tables."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.console import Config, SourceUrl, StoreUrl, out, settings_from, verb
from oddlog.settings import without_credentials


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("setup")(setup)


@verb
def setup(
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Partitions of the topic. Default: 4.", show_default=False)
    ] = None,
    config: Config = None,
    source: SourceUrl = None,
    store: StoreUrl = None,
) -> None:
    """Create what is missing: the Kafka topic, the store's index templates or tables. Harmless when run again."""
    settings = settings_from(config, source=source, store=store)
    from oddlog.connectors.by_url import using_store

    with using_store(settings.store) as opened:
        opened.setup()
    out.print(f"store   {without_credentials(settings.store.url)} is ready", highlight=False)
    if settings.source.url.startswith("kafka:"):
        from oddlog.connectors.kafka_producer import ensure_topic

        made = ensure_topic(settings.source, partitions=partitions)
        out.print(f"topic   {settings.source.url} {'made' if made else 'was there'}", highlight=False)
