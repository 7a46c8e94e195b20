"""Judged candidates, and the Markdown report of them: on what, gate by gate, and what follows. Nothing is decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oddlog.connectors.registry import ModelVersion
from oddlog.whole_file import whole_file
from training.gates import Evidence, Verdict, passed


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate, what was measured of it, and what the gates said; no verdicts where it was not its turn."""

    version: ModelVersion
    evidence: Evidence
    verdicts: list[Verdict]

    @property
    def passed(self) -> bool:
        """Whether the gates were asked, and none said no."""
        return bool(self.verdicts) and passed(self.verdicts)


def write_report(
    folder: Path,
    *,
    judged: Sequence[Judged],
    promoted: str | None,
    replaced: str | None,
    period: tuple[dt.datetime, dt.datetime] | None,
    dry_run: bool,
) -> Path:
    """Write the report below `folder`, beside its place and then renamed; returns its path."""
    now = dt.datetime.now(dt.UTC)
    folder.mkdir(parents=True, exist_ok=True)
    named = f"v{promoted}" if promoted else "none"
    path = folder / f"{now:%Y%m%dT%H%M%S%f}Z-{named}.md"
    with whole_file(path) as beside:
        beside.write_text(_report(judged, promoted, replaced, period, now, dry_run=dry_run), encoding="utf-8")
    return path


def _report(
    judged: Sequence[Judged],
    promoted: str | None,
    replaced: str | None,
    period: tuple[dt.datetime, dt.datetime] | None,
    now: dt.datetime,
    *,
    dry_run: bool,
) -> str:
    lines = [f"# {headline(promoted, replaced, dry_run=dry_run)}", "", f"Judged {now:%Y-%m-%d %H:%M:%S} UTC"]
    if judged and period:
        evidence = judged[0].evidence
        lines[-1] += (
            f" on {evidence.events:,} events from {period[0]:%Y-%m-%d %H:%M:%S} to {period[1]:%Y-%m-%d %H:%M:%S} UTC, "
            "all of them after what candidates and champion were fitted on."
        )
    else:
        lines[-1] += "; there were no events after those that the candidates were fitted on."
    lines += [
        "",
        "## Ranking",
        "",
        "| version | algorithm | average precision | by | alerts a day | gates |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_rank_row(one) for one in judged),
    ]
    rival = judged[0].evidence.champion if judged else None
    if rival is not None:
        figure = "not judged: " + rival.reason if rival.average_precision is None else f"{rival.average_precision:.3f}"
        lines.append(f"| {rival.version} (champion) | | {_cell(figure)} | | | |")
    for one in judged:
        if one.verdicts:
            lines += [
                "",
                f"## Version {one.version.version}, {one.version.algorithm}",
                "",
                "| gate | verdict | found | asked for | why it is asked |",
                "| --- | --- | --- | --- | --- |",
                *(
                    f"| {v.gate} | {v.outcome} | {_cell(v.figure)} | {_cell(v.limit)} | {_cell(v.why)} |"
                    for v in one.verdicts
                ),
            ]
    if promoted is not None and not dry_run and replaced is not None:
        lines += ["", f"To go back to version {replaced}: `oddlog rollback`."]
    return "\n".join(lines) + "\n"


def headline(promoted: str | None, replaced: str | None, *, dry_run: bool) -> str:
    """The outcome in one sentence.

    >>> headline("7", "4", dry_run=False), headline(None, "4", dry_run=True)
    ('Version 7 is champion, in place of version 4', 'Dry run: no candidate passes; version 4 stays champion')
    """
    if promoted is None:
        verb = "passes" if dry_run else "passed"
        stays = f"version {replaced} stays champion" if replaced else "there is no champion"
        sentence = f"no candidate {verb}; {stays}"
    else:
        verb = "would become" if dry_run else "is"
        sentence = f"version {promoted} {verb} champion" + (f", in place of version {replaced}" if replaced else "")
    return f"Dry run: {sentence}" if dry_run else sentence[0].upper() + sentence[1:]


def _rank_row(one: Judged) -> str:
    evidence = one.evidence
    quality = "-" if evidence.average_precision is None else f"{evidence.average_precision:.3f}"
    alerts = "-" if evidence.alerts_per_day is None else f"{evidence.alerts_per_day:.1f}"
    by = "-" if evidence.basis is None else f"{evidence.attacks:,} {evidence.basis}"
    said = "not asked: a better one passed"
    if one.verdicts:
        failed = [verdict.gate for verdict in one.verdicts if verdict.outcome == "fail"]
        said = "failed: " + ", ".join(failed) if failed else "passed"
    return f"| {one.version.version} | {one.version.algorithm} | {quality} | {by} | {alerts} | {said} |"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
