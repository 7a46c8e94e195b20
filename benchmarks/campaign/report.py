"""The table for people. What the figures are is in `run.py` and `verdict.py`."""

from __future__ import annotations

import os
import platform
from collections import Counter

from benchmarks.campaign.run import Outcome


def table(outcome: Outcome) -> str:
    """Markdown, as it goes into docs."""
    verdict, watched = outcome.verdict, outcome.watched
    rows: list[tuple[str, object]] = [("faults injected", f"{sum(outcome.injected.values()):,}")]
    rows += [(f"- {kind}", count) for kind, count in outcome.injected.items()]
    rows += [(f"requests met by {kind}", f"{count:,}") for kind, count in sorted(outcome.met.items())]
    exits = Counter("401" if one.refused else "other" if one.at_work else "start" for one in outcome.exits)
    rows += [
        ("records in the topic", f"{verdict.records:,}"),
        ("documents", f"{verdict.documents:,}"),
        ("dead letters", f"{verdict.dead_letters:,}"),
        *((f"- {kind}", count) for kind, count in verdict.dead_by_kind.items()),
        ("**lost**", verdict.lost),
        ("**duplicated**", verdict.duplicated),
        ("**misplaced**", verdict.misplaced),
        ("**mis-scored**", verdict.mis_scored),
        ("**features differing**", verdict.features_differ),
        ("**commits ahead of documents**", f"{len(watched.ahead)} (in {watched.checks:,} looks)"),
        ("**pending after the backfill**", f"{verdict.pending} (before it: {verdict.pending_before_backfill:,})"),
        *((f"scored by version {name}", f"{count:,}") for name, count in verdict.scored_by_version.items()),
        ("scores that tell the versions apart", f"{verdict.tellable:,}"),
        ("consumers started", outcome.consumers_started),
        ("ended by themselves, told 401", exits["401"]),
        ("ended by themselves at their start, a server being away", exits["start"]),
        ("**ended by themselves otherwise**", exits["other"]),
        ("longest time without a commit", f"{watched.longest_gap:.1f} s ({', '.join(watched.longest_gap_during)})"),
        ("duration", f"{outcome.seconds:.0f} s on {os.cpu_count()} cores, {platform.machine()}"),
    ]
    lines = [
        f"| campaign, seed {outcome.seed} | |",
        "| --- | ---: |",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    return "\n".join(lines)


def remarks(outcome: Outcome) -> str:
    """What a person looks into: exits, faults that were missed, examples of what is broken."""
    lines = [
        f"exit {one.code} of {one.consumer}{' (expected)' if one.expected else ''}: {one.error}"
        for one in outcome.exits
    ]
    lines += [f"missed: {text}" for text in outcome.missed]
    lines += [f"{name}: {', '.join(ids)}" for name, ids in outcome.verdict.examples.items()]
    lines += [f"ahead: {text}" for text in outcome.watched.ahead[:5]]
    lines += [f"BROKEN: {name}: {value}" for name, value in outcome.broken.items()]
    return "\n".join(lines)
