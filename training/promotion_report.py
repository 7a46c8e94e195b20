"""What came of a promotion, told: as Markdown for people, as a document for programs. Nothing is decided here."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oddlog.connectors.registry import ModelVersion
from oddlog.whole_file import whole_file
from training.approval import APPROVAL_TAG
from training.evidence import Evidence
from training.verdicts import Verdict, passed

log = logging.getLogger(__name__)

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Where a step of a GitHub workflow finds the file whose Markdown is shown on the page of its run."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate, what was measured of it, and what the gates said; no verdicts where it was not its turn."""

    version: ModelVersion
    evidence: Evidence
    verdicts: list[Verdict]
    rank: int = 1
    """Among the judged, the best first."""
    approved_by: str = ""
    """The name in its tag `approved_by`."""

    @property
    def passed(self) -> bool:
        """Whether the gates were asked, and none said no."""
        return bool(self.verdicts) and passed(self.verdicts)


@dataclass(frozen=True, slots=True)
class Promotion:
    """What came of a promotion."""

    judged: list[Judged]
    """Best first."""
    promoted: str | None
    """The version that passed: champion now, or would be without `dry_run`. None where no candidate passed, or where
    those that did wait for approval."""
    replaced: str | None
    """The champion before."""
    dry_run: bool
    at: dt.datetime
    period: tuple[dt.datetime, dt.datetime] | None = None
    """What was judged on; None where there were no events."""
    waiting: str | None = None
    """The best version that passed and is not approved, where approval is asked for."""
    report: Path = Path()
    """The Markdown; the same as JSON lies beside it."""

    @property
    def evidence(self) -> Path:
        """The JSON."""
        return self.report.with_suffix(".json")


def headline(promotion: Promotion) -> str:
    """The outcome in a sentence or two.

    >>> at = dt.datetime(2026, 3, 1)
    >>> headline(Promotion([], "7", "4", False, at)), headline(Promotion([], None, "4", True, at))
    ('Version 7 is champion, in place of version 4', 'Dry run: no candidate passes; version 4 stays champion')
    >>> headline(Promotion([], None, "4", False, at, waiting="7"))
    'Version 7 passed and waits for approval; version 4 stays champion'
    """
    dry, waiting = promotion.dry_run, promotion.waiting
    waits = f"version {waiting} {'passes and would wait' if dry else 'passed and waits'} for approval"
    if promotion.promoted is None:
        stays = f"version {promotion.replaced} stays champion" if promotion.replaced else "there is no champion"
        none = f"no candidate {'passes' if dry else 'passed'}"
        sentence = f"{none if waiting is None else waits}; {stays}"
    else:
        sentence = f"version {promotion.promoted} {'would become' if dry else 'is'} champion"
        sentence += f", in place of version {promotion.replaced}" if promotion.replaced else ""
        sentence += "" if waiting is None else f"; {waits}"
    return f"Dry run: {sentence}" if dry else sentence[0].upper() + sentence[1:]


def write_report(folder: Path, promotion: Promotion) -> Path:
    """Write Markdown and JSON below `folder`, each beside its place and then renamed; the path of the Markdown.

    In a workflow of GitHub's the Markdown is appended to the run's page, too."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = promotion.promoted or promotion.waiting
    path = folder / f"{promotion.at:%Y%m%dT%H%M%S%f}Z-{f'v{chosen}' if chosen else 'none'}.md"
    text = as_markdown(promotion)
    whole = json.dumps(as_document(promotion), indent=2, default=str, ensure_ascii=False) + "\n"
    for place, content in ((path.with_suffix(".json"), whole), (path, text)):
        with whole_file(place) as beside:
            beside.write_text(content, encoding="utf-8")
    if summary := os.environ.get(STEP_SUMMARY):
        try:
            with open(summary, "a", encoding="utf-8") as page:
                page.write(text + "\n")
        except OSError as error:  # the report is written; its copy decides nothing
            log.warning("the report could not be added to %s (%s): %s", STEP_SUMMARY, summary, error)
    return path


def as_document(promotion: Promotion) -> dict[str, Any]:
    """For programs."""
    since, until = promotion.period or (None, None)
    return {
        "outcome": headline(promotion),
        "promoted": promotion.promoted,
        "waiting": promotion.waiting,
        "replaced": promotion.replaced,
        "dry_run": promotion.dry_run,
        "at": promotion.at.isoformat(timespec="seconds"),
        "since": None if since is None else since.isoformat(),
        "until": None if until is None else until.isoformat(),
        "judged": [
            {
                "rank": one.rank,
                "version": one.version.version,
                "algorithm": one.version.algorithm,
                "run_id": one.version.run_id,
                "passed": one.passed,
                "approved_by": one.approved_by or None,
                "evidence": asdict(one.evidence),
                "verdicts": [asdict(verdict) for verdict in one.verdicts],
            }
            for one in promotion.judged
        ],
    }


def as_markdown(promotion: Promotion) -> str:
    """For people: on what was judged, the ranking, gate by gate, and the way back."""
    lines = [f"# {headline(promotion)}", "", f"Judged {promotion.at:%Y-%m-%d %H:%M:%S} UTC"]
    if promotion.judged and promotion.period:
        evidence, (since, until) = promotion.judged[0].evidence, promotion.period
        lines[-1] += (
            f" on {evidence.events:,} events from {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC, "
            "all of them after what candidates and champion were fitted on."
        )
        if evidence.sample < 1:
            lines[-1] += (
                f" They are of {100 * evidence.sample:.3g} % of the clients, chosen by hash, to fit into memory."
            )
    else:
        lines[-1] += "; there were no events after those that the candidates were fitted on."
    if promotion.waiting is not None:
        lines += ["", f"Version {promotion.waiting} becomes champion once its tag `{APPROVAL_TAG}` names a person."]
    lines += [
        "",
        "## Ranking",
        "",
        "| rank | version | algorithm | average precision | by | planted attacks found | alerts a day | gates |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_rank_row(one) for one in promotion.judged),
    ]
    rival = promotion.judged[0].evidence.champion if promotion.judged else None
    if rival is not None:
        figure = "not judged: " + rival.reason if rival.average_precision is None else f"{rival.average_precision:.3f}"
        lines.append(f"| | {rival.version} (champion) | | {_cell(figure)} | | | | |")
    for one in promotion.judged:
        if one.verdicts:
            lines += ["", f"## Version {one.version.version}, {one.version.algorithm}", ""]
            lines += [f"Approved by {one.approved_by}, says its tag.", ""] if one.approved_by else []
            lines += [
                "| gate | verdict | found | asked for | why it is asked |",
                "| --- | --- | --- | --- | --- |",
                *(
                    f"| {v.gate} | {v.outcome} | {_cell(v.figure)} | {_cell(v.limit)} | {_cell(v.why)} |"
                    for v in one.verdicts
                ),
            ]
    if promotion.promoted is not None and not promotion.dry_run and promotion.replaced is not None:
        lines += ["", f"To go back to version {promotion.replaced}: `oddlog rollback`."]
    return "\n".join(lines) + "\n"


def failed_gates(judged: Sequence[Judged]) -> list[str]:
    """Every gate that said no, with its figure."""
    return [
        f"version {one.version.version}: {verdict.gate} ({verdict.figure}; {verdict.limit})"
        for one in judged
        for verdict in one.verdicts
        if verdict.outcome == "fail"
    ]


def _rank_row(one: Judged) -> str:
    evidence = one.evidence
    quality = "-" if evidence.average_precision is None else f"{evidence.average_precision:.3f}"
    found = "-" if evidence.detected is None else f"{evidence.detected.share:.0%}"
    alerts = "-" if evidence.alerts_per_day is None else f"{evidence.alerts_per_day:.1f}"
    by = "-" if evidence.basis is None else f"{evidence.attacks:,} {evidence.basis}"
    said = "not asked: a better one passed"
    if one.verdicts:
        failed = [verdict.gate for verdict in one.verdicts if verdict.outcome == "fail"]
        said = "failed: " + ", ".join(failed) if failed else "passed"
    name = f"| {one.rank} | {one.version.version} | {one.version.algorithm} "
    return f"{name}| {quality} | {by} | {found} | {alerts} | {said} |"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
