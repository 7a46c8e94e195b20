"""A model's card for people: what it is, made from what, how good, and what it is not. Markdown, no measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oddlog.events.printable import printable
from oddlog.scoring.card import Card
from training.evaluate import Labelled, Planted

_ALGORITHMS = {
    "iforest": "an isolation forest over the features' surprise, fitted on the soundest events",
    "autoencoder": "an autoencoder over the features' surprise, fitted on the soundest events",
    "surprise": "a weighted sum of the features' surprise",
}


def describe(
    card: Card,
    labelled: Labelled | None,
    planted: Planted | None,
    held_out_alerts: float | None,
    *,
    cautions: Sequence[str] = (),
    sampling: str | None = None,
    left_out: tuple[int, int] | None = None,
) -> str:
    """The card as Markdown.

    `cautions`: what checks said of the events; `sampling`: what a sample did to the counts; `left_out`: clients that
    were alerted on and their events, where these were left out."""
    data, threshold = card.dataset, card.threshold
    held_out = (
        "" if held_out_alerts is None else f"; chosen on the first half of them, {held_out_alerts:.1f} on the second"
    )
    lines = [
        f"# {card.algorithm}",
        "",
        f"Scores web log events: higher = more anomalous. It is {_ALGORITHMS[card.algorithm]}.",
        "",
        "| | |",
        "| --- | --- |",
        f"| events | {data.events:,} of {data.clients:,} clients |",
        f"| period | {data.since:%Y-%m-%d %H:%M} to {data.until:%Y-%m-%d %H:%M} UTC |",
        f"| fitted before | {data.fit_until:%Y-%m-%d %H:%M} UTC; later events calibrate and evaluate |",
        f"| source | {data.source} |",
        *([] if card.privacy is None else [f"| privacy | {card.privacy} |"]),
        *([] if sampling is None else [f"| sample | {sampling} |"]),
        *(
            []
            if left_out is None
            else [f"| left out | {left_out[0]:,} clients alerted on before, {left_out[1]:,} events of theirs |"]
        ),
        f"| data set | `{data.digest}` |",
        f"| features | {len(card.feature_names)}, declaration `{card.feature_digest[:12]}` |",
        f"| baseline | `{card.baseline_digest[:12]}` |",
        f"| threshold | {threshold.value:.6g}{_novelty(card)}, for a budget of {threshold.budget_per_day:g} alerts "
        f"a day (alert = client and hour); {threshold.expected_per_day:.1f} a day on the later events{held_out} |",
        f"| parameters | {_inline(card.parameters)} |",
        f"| seed | {card.seed} |",
        f"| made by | oddlog {card.oddlog_version}, {card.created_at:%Y-%m-%d %H:%M} UTC |",
        f"| model digest | `{card.model_digest}` |",
        "",
        *([] if not cautions else ["## To be careful about", "", *(f"- {_inline_text(one)}" for one in cautions), ""]),
        "## Quality on the later events",
        "",
    ]
    if labelled is not None:
        lines += [
            f"Against labels ({labelled.attacks:,} attack events, {labelled.benign:,} benign):",
            "",
            "| average precision | ROC AUC | precision at 1 % | recall at the budget | precision at the budget |",
            "| --- | --- | --- | --- | --- |",
            f"| {labelled.average_precision:.3f} | {labelled.roc_auc:.3f} | {labelled.precision_at_1_percent:.3f} "
            f"| {labelled.recall_at_budget:.3f} | {labelled.precision_at_budget:.3f} |",
            "",
        ]
    else:
        lines += ["The events carry no labels of both kinds, so nothing was measured against labels.", ""]
    if planted is not None:
        lines += [
            f"Against planted attacks ({planted.events:,} events; average precision {planted.average_precision:.3f}):",
            "",
            "| scenario | events | average precision | instances with an alert |",
            "| --- | --- | --- | --- |",
            *(
                f"| {name} | {one.events:,} | {one.average_precision:.3f} | {one.detected:.0%} of {one.instances} |"
                for name, one in planted.by_scenario.items()
            ),
            "",
        ]
    lines += [
        "## What it is not",
        "",
        "Unsupervised: it tells what is odd, not what is malicious. It knows one site, that of its data set. "
        "What the fitted period held all along is normal to it.",
        "",
    ]
    return "\n".join(lines)


def _novelty(card: Card) -> str:
    """The second channel's threshold."""
    second = card.threshold.novelty
    if second is None:
        return ""
    return (
        f"; of novelty, how odd a request is in itself, {second.value:.4g} ({second.expected_per_day:.1f} alerts a day "
        "of its own)"
    )


def _inline_text(text: str) -> str:
    """A sentence that names what a log says, as one line of Markdown that stays text."""
    plain = printable(text, most=600)
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in plain)


def _inline(parameters: Mapping[str, object]) -> str:
    """Parameters in one cell of a table."""
    text = ", ".join(f"{name} {value}" for name, value in parameters.items())
    return text.replace("|", "/") if len(text) <= 400 else text[:400].replace("|", "/") + " ..."
