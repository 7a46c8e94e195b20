"""Every part that the settings name, looked at once: what is well, what is not, and the command that mends it.

Nothing is changed by looking. How each part is asked is its connector's business.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import polars as pl

from oddlog.connectors.by_url import denied_by_store, open_registry, open_store, source_state
from oddlog.connectors.privacy_stamp import is_claimed
from oddlog.connectors.registry import CHAMPION, ModelVersion, Registry
from oddlog.connectors.source import PartitionState
from oddlog.connectors.store import EventQuery, Store
from oddlog.errors import OddlogError, OutsideError
from oddlog.events.privacy import reader_of
from oddlog.features.declaration import feature_digest
from oddlog.scoring.artifact import read_card
from oddlog.scoring.model import Model
from oddlog.settings import Settings

Verdict = Literal["ok", "no", "failed", "skipped"]

SAMPLE_ROWS = 50_000
"""Most events that are looked at for clients in two partitions."""
ENOUGH_ROWS = 1_000
_SPANS = (timedelta(hours=1), timedelta(days=1), timedelta(days=30))


@dataclass(frozen=True, slots=True)
class Check:
    """One line: `no` is a check that said no, `failed` a part that could not be asked, `skipped` one that could
    not be looked at because of another."""

    part: str
    verdict: Verdict
    text: str
    mend: str | None = None


def exit_code(checks: list[Check]) -> int:
    """0: all is well; 1: a check said no; 3: a part failed."""
    verdicts = {check.verdict for check in checks}
    return 3 if "failed" in verdicts else 1 if "no" in verdicts else 0


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, one after the other. Raises nothing that a part does wrong."""
    yield from _source(settings)
    yield from _store(settings)
    registry = _Registry(settings)
    yield from registry.checks()
    yield from _scorer(settings, registry.champion)


def _look(part: str, look: Callable[[], Check], mend: str) -> Check:
    """A check whose errors are its verdict."""
    try:
        return look()
    except OddlogError as error:
        verdict: Verdict = "failed" if isinstance(error, OutsideError) else "no"
        return Check(part, verdict, error.found, error.mend or mend)


def _skipped(because: str, *parts: str) -> Iterator[Check]:
    for part in parts:
        yield Check(part, "skipped", because)


# source


def _source(settings: Settings) -> Iterator[Check]:
    found: list[PartitionState] = []
    url = settings.source.url

    def ask() -> Check:
        found.extend(source_state(settings.source))
        return Check("source", "ok", f"{url} can be asked")

    asked = _look("source", ask, "look at source.url: oddlog config")
    yield asked
    if asked.verdict != "ok":
        yield from _skipped("the source cannot be asked", "topic", "offsets")
        return
    if not found:
        if url.startswith("kafka:"):
            yield Check("topic", "no", f"{url}: there is no such topic", "oddlog setup, or correct source.url")
        else:
            yield Check("topic", "no", f"{url}: there is no such file", "correct source.url: oddlog config")
        yield from _skipped("there is nothing to read", "offsets")
        return
    many = f"{len(found)} partition{'s' * (len(found) > 1)}" if url.startswith("kafka:") else "a file"
    size = sum(state.end - state.begin for state in found)
    unit = "records" if url.startswith("kafka:") else "bytes"
    yield Check("topic", "ok", f"{many}, {size:,} {unit} kept")
    yield _offsets(settings, found, unit)


def _offsets(settings: Settings, found: list[PartitionState], unit: str) -> Check:
    group, epoch = settings.source.group, settings.source.epoch
    for state in found:
        if state.problem is not None:
            return Check("offsets", "no", state.problem.found, state.problem.mend)
    if all(state.committed is None for state in found):
        return Check(
            "offsets", "ok", f"group {group!r} has committed nothing yet (epoch {epoch}): oddlog enrich begins"
        )
    behind = sum(state.end - (state.begin if state.committed is None else state.committed) for state in found)
    return Check("offsets", "ok", f"group {group!r} is {max(0, behind):,} {unit} behind, and fits epoch {epoch}")


# store


def _store(settings: Settings) -> Iterator[Check]:
    denied: list[str] = []
    problems: list[str] = []
    opened: list[Store] = []

    def ask() -> Check:
        denied.extend(denied_by_store(settings.store))
        if not denied:
            opened.append(open_store(settings.store))
            problems.extend(opened[0].setup_problems())
            if not problems:
                opened[0].ping()
        return Check("store", "ok", f"{settings.store.url} can be asked")

    try:
        asked = _look("store", ask, "look at store.url: oddlog config")
        yield asked
        if asked.verdict != "ok":
            yield from _skipped("the store cannot be asked", "privileges", "mappings", "clients")
            yield _privacy(settings, None)
            return
        if denied:
            text = f"the user of the store may not: {', '.join(denied)}"
            yield Check("privileges", "no", text, "give it the role of deploy/elasticsearch/role.json: docs/store.md")
            yield from _skipped("the user may not do all that is needed", "mappings", "clients")
            yield _privacy(settings, None)
            return
        yield Check("privileges", "ok", "all that oddlog asks of the store is allowed")
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            yield Check("mappings", "no", problems[0] + more, _mend_mappings(problems))
            if urlsplit(settings.store.url).scheme == "sqlite":
                yield from _skipped("there is no store yet", "clients")
                yield _privacy(settings, None)
                return
        else:
            yield Check("mappings", "ok", "as this version of oddlog makes them")
        yield _look("clients", lambda: _clients(opened[0]), "oddlog doctor")
        yield _privacy(settings, opened[0])
    finally:
        for store in opened:
            store.close()


def _mend_mappings(problems: list[str]) -> str:
    if any(problem.startswith("the index ") and " has " in problem for problem in problems):
        return 'oddlog setup, then write the index anew: see docs/operating.md, "An index made without its template"'
    return "oddlog setup"


def _clients(store: Store) -> Check:
    """Whether every client is in one partition: its state is kept by partition, and would be split."""
    store.refresh()
    times = store.time_range(EventQuery())
    if times is None:
        return Check("clients", "skipped", "there are no events yet")
    position = ["oddlog.position.epoch", "oddlog.position.topic", "source.address"]
    number = "oddlog.position.partition"
    for span in _SPANS:
        frames: list[pl.DataFrame] = []
        rows = 0
        for frame in store.read_events(EventQuery(since=times[1] - span), columns=[*position, number]):
            frames.append(frame)
            rows += frame.height
            if rows >= SAMPLE_ROWS:
                break
        if rows >= ENOUGH_ROWS:
            break
    sample = pl.concat(frames)
    split = (
        sample.group_by(position)
        .agg(pl.col(number).unique().sort())
        .filter(pl.col(number).list.len() > 1)
        .sort("source.address")
    )
    clients = sample["source.address"].n_unique()
    if split.is_empty():
        return Check("clients", "ok", f"{clients:,} clients in {rows:,} recent events, each in one partition")
    shown = "; ".join(
        f"{row['source.address']} in {row['oddlog.position.topic']} {', '.join(map(str, row[number]))}"
        for row in split.head(3).iter_rows(named=True)
    )
    return Check(
        "clients",
        "no",
        f"{split.height:,} of {clients:,} clients are in several partitions, so their features are split: {shown}",
        "key the records by the client's address: deploy/filebeat/filebeat.yml, or oddlog ship",
    )


def _privacy(settings: Settings, store: Store | None) -> Check:
    """Whether what privacy needs is there, and the store's events were made under it. None: the store is not asked."""

    def look() -> Check:
        stamp = reader_of(settings.privacy).stamp
        said = "clients and query strings are kept as they come" if stamp is None else str(stamp)
        if store is None:
            return Check("privacy", "ok", f"{said}; the store was not asked whether it was begun so")
        so = is_claimed(store, stamp)
        return Check("privacy", "ok", f"{said}, {'as in the store' if so else 'from the first event on'}")

    return _look("privacy", look, "oddlog privacy")


# registry


class _Registry:
    """The checks of registry and champion; who is champion is known afterwards."""

    def __init__(self, settings: Settings) -> None:
        self.champion: ModelVersion | None = None
        self._settings = settings
        self._registry: Registry | None = None

    def checks(self) -> Iterator[Check]:
        """Reachable, a champion, its artifact, its features."""
        asked = _look("registry", self._ask, "look at registry.url: oddlog config")
        yield asked
        if asked.verdict != "ok":
            yield from _skipped("the registry cannot be asked", CHAMPION, "artifact", "features")
            return
        named = _look(CHAMPION, self._named, "oddlog train && oddlog promote")
        yield named
        if self.champion is None:
            yield from _skipped("there is no champion", "artifact", "features")
            return
        with tempfile.TemporaryDirectory(prefix="oddlog-doctor-") as folder:
            yield from self._artifact(self.champion, Path(folder))

    def _ask(self) -> Check:
        self._registry = open_registry(self._settings.registry)
        count = len(self._registry.versions())
        model = self._settings.registry.model
        return Check("registry", "ok", f"{self._settings.registry.url} has {count} versions of {model}")

    def _named(self) -> Check:
        assert self._registry is not None
        self.champion = self._registry.by_alias(CHAMPION)
        if self.champion is None:
            return Check(CHAMPION, "no", "no version is champion", "oddlog train && oddlog promote")
        return Check(CHAMPION, "ok", f"version {self.champion.version} ({self.champion.algorithm})")

    def _artifact(self, champion: ModelVersion, folder: Path) -> Iterator[Check]:
        fetched: list[Path] = []
        same = False

        def features() -> Check:
            assert self._registry is not None
            fetched.append(self._registry.download(champion.version, folder))
            card = read_card(fetched[0])
            nonlocal same
            same = card.feature_digest == feature_digest()
            if same:
                return Check(
                    "features", "ok", f"digest {feature_digest()[:12]}, as this version of oddlog computes them"
                )
            return Check(
                "features",
                "no",
                f"the champion was made for features {card.feature_digest[:12]} by oddlog {card.oddlog_version}; this "
                f"version computes {feature_digest()[:12]}",
                "oddlog train && oddlog promote, or run that version of oddlog",
            )

        def artifact() -> Check:
            model = Model.load(fetched[0])
            golden = len(model.card.golden.scores)
            return Check(
                "artifact", "ok", f"digest {model.card.model_digest[:12]}, {golden} golden vectors score as then"
            )

        judged = _look("features", features, "oddlog train && oddlog promote")
        if not fetched:
            yield Check("artifact", judged.verdict, judged.text, judged.mend)
            yield from _skipped("the artifact cannot be fetched", "features")
            return
        if same:
            yield _look("artifact", artifact, "oddlog rollback, or oddlog train && oddlog promote")
        else:
            yield from _skipped("it is not loaded under other features", "artifact")
        yield judged


# scorer


def _scorer(settings: Settings, champion: ModelVersion | None) -> Iterator[Check]:
    url = settings.scorer.url
    if urlsplit(url).scheme == "local":
        yield Check("scorer", "ok", "local: scores in the process that asks")
        yield from _skipped("a scorer in process follows the registry", "ready", "same champion")
        return
    from serving.client import HttpScorer

    told: dict[str, object] = {}

    def ask() -> Check:
        scorer = HttpScorer(settings.scorer)
        try:
            told.update(scorer.models())
        finally:
            scorer.close()
        return Check("scorer", "ok", f"{url} answers")

    asked = _look("scorer", ask, "bentoml serve, or correct scorer.url")
    yield asked
    if asked.verdict != "ok":
        yield from _skipped("the scorer cannot be asked", "ready", "same champion")
        return
    served, detail = told["champion"], str(told["detail"])
    if not isinstance(served, dict):
        mend = (
            "oddlog train && oddlog promote" if champion is None else f"look at {url}/v1/models, and the service's log"
        )
        yield Check("ready", "no", detail, mend)
        yield from _skipped("the scorer serves no model", "same champion")
        return
    yield Check("ready", "ok", detail)
    if champion is None:
        yield from _skipped("the registry names no champion", "same champion")
    elif served["version"] == champion.version:
        yield Check("same champion", "ok", f"scorer and registry name version {champion.version}")
    else:
        yield Check(
            "same champion",
            "no",
            f"the scorer serves version {served['version']}, the registry names {champion.version}",
            f"wait {settings.serve.poll_seconds:g} s for its next look; else point both at one registry: oddlog config",
        )
