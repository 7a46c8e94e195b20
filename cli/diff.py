"""`oddlog models diff A B`: what two versions decide differently. Comparing is in training/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Config, Json, RegistryUrl, StoreUrl, emit_json, out, settings_from, show_table, verb
from cli.logs import LogJson, log_flags, start_logging
from cli.stages import stages
from cli.times import Since, Until, period
from oddlog.events.printable import printable

if TYPE_CHECKING:
    from training.diff import Difference, Kind
    from training.diff_examples import Example, Opinion

SHOWN = 10
"""Path templates for people; a document has more."""
URL_LENGTH = 120


@verb
def diff(
    a: Annotated[str, typer.Argument(help="A version or alias.", metavar="A", show_default=False)],
    b: Annotated[str, typer.Argument(help="Another one.", metavar="B", show_default=False)],
    since: Since = None,
    until: Until = None,
    config: Config = None,
    store: StoreUrl = None,
    registry: RegistryUrl = None,
    log_json: LogJson = False,
    json: Json = False,
) -> None:
    """Compare what two versions find odd in stored events, with examples and the reasons that either gives.

    Without a period: the events after those that either was fitted on.
    """
    start, end = period(since, until)
    settings = settings_from(config, store=store, registry=registry, log=log_flags(log_json))
    start_logging(settings)
    with stages(quiet=json) as tell:
        from training.diff import as_document, compare

        found = compare(settings, a, b, since=start, until=end, progress=tell)
    if json:
        emit_json(as_document(found))
    else:
        _show(found)


def _show(found: Difference) -> None:
    share = "" if found.share >= 1 else f" ({100 * found.share:.3g} % of the clients, by hash)"
    out.print(
        f"[bold]versions {found.a.version} and {found.b.version}[/] of {found.model}: {found.events:,} events of "
        f"{found.clients:,} clients{share}, {found.since:%Y-%m-%d %H:%M} to {found.until:%Y-%m-%d %H:%M} UTC",
        highlight=False,
    )
    show_table(
        None,
        ["version", "algorithm", "threshold", "anomalies", "client-hours", "alerts a day, like ones once"],
        [
            (
                side.version,
                side.algorithm,
                f"{side.threshold:.4g} (threshold {side.threshold_version})",
                f"{side.anomalies:,}",
                f"{side.client_hours:,}",
                f"{side.alerts_per_day:.1f}",
            )
            for side in (found.a, found.b)
        ],
    )
    show_table(
        None,
        ["odd to", "both", f"only {found.a.version}", f"only {found.b.version}", "neither"],
        [
            (name, *(f"{number:,}" for number in (one.both, one.only_a, one.only_b, one.neither)))
            for name, one in (("events", found.by_event), ("client-hours", found.by_client_hour))
        ],
    )
    ranks = found.ranks
    out.print(
        f"scores rank events alike to {_correlation(ranks.events)}, client-hours to {_correlation(ranks.client_hours)} "
        f"(Spearman); of the {ranks.top:,} oddest client-hours {ranks.top_in_common:.0%} are the same",
        highlight=False,
    )
    _show_kinds("by status", "status", found.statuses, found)
    _show_kinds("paths that are decided most differently", "path", found.templates[:SHOWN], found)
    _show_examples(found.only_a, found)
    _show_examples(found.only_b, found)
    for caution in found.cautions:
        out.print(f"[yellow]be careful:[/] {caution}", highlight=False)


def _show_kinds(title: str, what: str, kinds: Sequence[Kind], found: Difference) -> None:
    if not kinds:
        return
    show_table(
        title,
        [what, "events", f"odd to {found.a.version}", f"odd to {found.b.version}"],
        [
            (
                printable(one.name, most=URL_LENGTH),
                f"{one.events:,}",
                f"{one.a:,} ({one.a / one.events:.1%})",
                f"{one.b:,} ({one.b / one.events:.1%})",
            )
            for one in kinds
        ],
    )


def _show_examples(examples: Sequence[Example], found: Difference) -> None:
    if not examples:
        return
    sides = [(found.a.version, "a"), (found.b.version, "b")]
    own = next(version for version, name in sides if getattr(examples[0], name).is_anomaly)
    out.print(f"\n[bold]only version {own} alerts[/]", highlight=False)
    for one in examples:
        answer = "" if one.status is None else f" -> {one.status}"
        alike = f"; {one.alike:,} more like it" if one.alike else ""
        out.print(
            f"{printable(one.client, most=60)}, {one.hour:%Y-%m-%d %H}:00, {one.odd:,} odd{alike}: "
            f"{printable(one.method or '(no HTTP)', most=20)} {printable(one.url, most=URL_LENGTH)}{answer}",
            highlight=False,
            markup=False,
        )
        for version, name in sides:
            _show_opinion(version, getattr(one, name))


def _show_opinion(version: str, opinion: Opinion) -> None:
    verdict = "an anomaly" if opinion.is_anomaly else "no anomaly"
    out.print(f"  {version}: {verdict}, {opinion.rarity}", highlight=False, markup=False)
    for reason in opinion.reasons:
        text = reason["text"].removeprefix(f"{reason['feature']}: ")
        out.print(f"    {printable(text, most=300)}", highlight=False, markup=False)


def _correlation(value: float | None) -> str:
    return "nothing that can be told" if value is None else f"{value:.3f}"
