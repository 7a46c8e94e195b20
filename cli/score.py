"""`oddlog score FILE`: the oddest clients and requests of a log, without any server. Scoring is in `training/`."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, BinaryIO

import typer

from cli.console import Config, Json, RegistryUrl, emit_json, out, settings_from, verb
from cli.stages import shares
from oddlog.errors import UsageError
from oddlog.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oddlog.settings import Settings
    from training.filescore import Progress, ReadLog, ScoredLog
    from training.findings import Findings, OddClient, OddEvent


log = logging.getLogger(__name__)

CSV_ROWS = 10_000
"""Rows written at a time: whoever reads them may have seen enough."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("score")(score)


@verb
def score(
    file: Annotated[str, typer.Argument(help="A log: plain, .gz or .zst; - is standard input.", metavar="FILE")],
    algorithm: Annotated[
        str | None, typer.Option(help="surprise (default), iforest or autoencoder, fitted on the file.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A trained model instead: a version or alias of the registry, or a folder.", metavar="VERSION|FOLDER"
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Alerts to see, as in 20/day. Beats train.budget, or the model's threshold.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many clients and requests to tell of.", min=1, max=1_000)] = 10,
    html: Annotated[Path | None, typer.Option(help="Write one page that needs no other file.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Odd requests as CSV on standard output, for programs.")] = False,
    every: Annotated[bool, typer.Option("--every", help="With --csv: every request with its score.")] = False,
    seed: Annotated[int | None, typer.Option(help="Beats train.seed.", show_default=False)] = None,
    config: Config = None,
    registry: RegistryUrl = None,
    json: Json = False,
) -> None:
    """Find the odd clients and requests of a log file: no server, no training before."""
    if json and csv:
        raise UsageError("--json and --csv both want standard output", expected="one of them")
    if every and not csv:
        raise UsageError("--every without --csv", expected="--csv --every: every request with its score")
    if model is not None and algorithm is not None:
        raise UsageError("--model and --algorithm", expected="one: a trained model, or an algorithm to fit on the file")
    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise UsageError(f"cannot write to {html}", expected="a file in a folder that exists")
    settings = settings_from(config, registry=registry, train={"budget": budget, "seed": seed})
    with shares(quiet=json or csv) as tell:
        tell("loading", None)
        scored = _scored(settings, file, algorithm, model, budget, tell)
        from training.findings import find, table

        tell("looking for what stands out", None)
        findings = find(scored, clients=top, events=top)
        if html is not None:
            from training.page import page

            _write(html, page(scored, find(scored, clients=max(top, 200), events=max(top, 200))))
        rows = table(scored, every=every) if csv else None
    if json:
        from training.findings import document

        emit_json(document(scored, findings))
    elif rows is not None:
        for first in range(0, max(1, rows.height), CSV_ROWS):
            sys.stdout.write(rows[first : first + CSV_ROWS].write_csv(include_header=first == 0))
        sys.stdout.flush()
    else:
        _tell(scored, findings, file, html)


def _scored(
    settings: Settings, file: str, algorithm: str | None, model: str | None, budget: str | None, tell: Progress
) -> ScoredLog:
    from oddlog.detectors.catalogue import create
    from oddlog.scoring.threshold import parse_budget
    from training.filescore import score_by_itself, score_by_model, with_threshold

    if model is None:
        chosen = create(algorithm or "surprise").name  # a wrong name is told before a long file is read
        return score_by_itself(
            _read(settings, file, tell), algorithm=chosen, budget=parse_budget(settings.train.budget),
            seed=settings.train.seed, progress=tell,
        )  # fmt: skip
    from oddlog.connectors.models import find_model
    from oddlog.events.privacy import stamp_of
    from oddlog.scoring.privacy import check_privacy

    found = find_model(settings.registry, model)
    if (caution := check_privacy(found.model.card, stamp_of(settings.privacy))) is not None:
        log.warning("%s", caution)
    scored = score_by_model(
        _read(settings, file, tell), found.model, name=found.name, threshold=found.threshold, progress=tell
    )
    return scored if budget is None else with_threshold(scored, parse_budget(budget))


def _read(settings: Settings, file: str, tell: Progress) -> ReadLog:
    from oddlog.events.privacy import reader_of
    from training.filescore import read_events

    parser = reader_of(settings.privacy).parse
    with _opened(file) as (source, name, size):
        return read_events(source, name=name, size=size, progress=tell, parser=parser)


@contextmanager
def _opened(file: str) -> Iterator[tuple[BinaryIO, str, int | None]]:
    """The log, what to call it, and its size where it has one."""
    if file == "-":
        if sys.stdin.isatty():
            raise UsageError("standard input is a terminal", expected="a log in it",
                             mend="oddlog score FILE, or: zcat FILE | oddlog score -")  # fmt: skip
        yield sys.stdin.buffer, "standard input", None
        return
    path = Path(file)
    if not path.exists():
        raise UsageError(f"there is no file {file}", expected="an access log: plain, .gz or .zst; - is standard input")
    if path.is_dir():
        raise UsageError(f"{file} is a folder", expected="one log file", mend=f"cat {file}/* | oddlog score -")
    try:
        source: IO[bytes] = path.open("rb", buffering=0)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", expected="a file that may be read") from None
    with source:
        yield source, path.name, path.stat().st_size or None  # type: ignore[misc]


def _write(path: Path, text: str) -> None:
    try:
        with whole_file(path) as beside:
            beside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", expected="a file that may be written") from None


def _tell(scored: ScoredLog, findings: Findings, file: str, html: Path | None) -> None:
    """For a person: what was read, the oddest clients, the oddest requests, each with severity and reasons."""
    from training.words import counted, headline, judged_by, unread

    line = _line
    line(headline(scored, findings), "bold")
    if scored.log.unread:
        line(unread(scored.log), "yellow")
    line(judged_by(scored, findings))
    line("\nthe oddest clients", "bold")
    for client in findings.oddest_clients:
        _tell_client(client)
    line("\nthe oddest requests", "bold")
    for event in findings.oddest_events:
        _tell_event(event)
    if findings.novel_events:
        line("\nrequests odd in themselves, though their clients look sound", "bold")
    for event in findings.novel_events:
        _tell_novel(event)
    rest = findings.groups - len(findings.oddest_clients)
    if rest > 0:
        line(f"\n{counted(rest, 'more group')} of clients with odd requests: --top {findings.groups}", "dim")
    if html is not None:
        line(f"\nthe page: {html}")
    elif file != "-":
        line(f"\nlook closer: oddlog score {file} --html odd.html", "dim")


def _tell_client(client: OddClient) -> None:
    from oddlog.scoring.explanation import rarer_than
    from training.words import alike, request_of, share_odd

    odd = client.oddest
    _line(f"  {_shown(client.client)}", "bold cyan", end="  ")
    _line(rarer_than(odd.severity), _colour(odd))
    _fitting(f"      {share_odd(client)}{alike(client)}")
    _fitting(f"      line {odd.line:,}: {request_of(odd)}", cut=True)
    _tell_reasons(odd)


def _tell_event(event: OddEvent) -> None:
    from oddlog.scoring.explanation import rarer_than
    from training.words import counted, request_of

    _fitting(f"  line {event.line:,}: {request_of(event)}", cut=True, style="cyan")
    others = f"; {counted(event.alike, 'odd request')} for this path" if event.alike > 1 else ""
    _fitting(f"      {rarer_than(event.severity)}; {event.time:%Y-%m-%d %H:%M:%S} by {_shown(event.client)}{others}")


def _tell_novel(event: OddEvent) -> None:
    from training.words import request_of

    _fitting(f"  line {event.line:,}: {request_of(event)}", cut=True, style="cyan")
    why = event.reasons[0]["text"].split(": ", 1)[-1] if event.reasons else "its path and words are new"
    _fitting(f"      {event.time:%Y-%m-%d %H:%M:%S} by {_shown(event.client)}: {why}", style="dim")


def _tell_reasons(event: OddEvent) -> None:
    for reason in event.reasons:
        _fitting(f"      - {reason['text'].split(': ', 1)[-1]}", style="dim")


def _line(text: str, style: str | None = None, end: str = "\n") -> None:
    out.print(text, style=style, end=end, highlight=False, markup=False, soft_wrap=True)


def _fitting(text: str, *, style: str | None = None, cut: bool = False) -> None:
    """One line, indented where it goes on; or cut where the terminal ends. A file or pipe gets it whole."""
    import textwrap

    if not out.is_terminal:
        _line(text, style)
        return
    if cut:
        _line(text if len(text) <= out.width else text[: out.width - 1] + "…", style)
        return
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    for part in textwrap.wrap(text, out.width, subsequent_indent=indent, drop_whitespace=True, initial_indent=""):
        _line(part, style)


def _colour(event: OddEvent) -> str | None:
    return "red" if event.is_anomaly else None


def _shown(text: str) -> str:
    from oddlog.events.printable import printable

    return printable(text, most=60)
