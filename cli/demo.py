"""`oddlog demo`: the whole life cycle on traffic that is simulated, or on a log of your own."""

from __future__ import annotations

import datetime as dt
import json as json_
import logging
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.console import Config, Json, emit_json, err, settings_from, verb
from oddlog.errors import UsageError
from oddlog.whole_file import whole_file

if TYPE_CHECKING:
    from oddlog.connectors.registry import Registry
    from oddlog.connectors.store import Store
    from oddlog.settings import Settings
    from serving.counts import Counts

HOME = Path("mlruns/demo")
FIRST_SHARE = 0.7
"""Share of the lines that arrive before there is a model."""

SIMULATED_DAYS = 6.0
ALGORITHMS = ("iforest", "autoencoder", "surprise")
DEMO_TAG = "oddlog.demo"
"""On every version a demo registers: a later demo may retire those, and only those."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("demo")(demo)


@verb
def demo(
    log: Annotated[
        Path | None, typer.Option(help="An access log of yours (plain or .gz); default: simulated traffic.")
    ] = None,
    backend: Annotated[
        Literal["embedded", "real"],
        typer.Option(help="embedded: files and SQLite; real: Kafka and Elasticsearch, started without Docker."),
    ] = "embedded",
    lines: Annotated[int, typer.Option(help="Lines to simulate.", min=5_000)] = 30_000,
    seed: Annotated[int, typer.Option(help="Seed of simulation and training.")] = 1,
    config: Config = None,
    json: Json = False,
) -> None:
    """Traffic -> pending -> three models -> gates -> champion -> BentoML -> backfill -> live scores -> drift."""
    # Asked to end, it ends what it started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with ExitStack() as cleanup:
        story = Demo(settings_from(config, train={"seed": seed}), backend, cleanup)
        summary = story.run(log, lines, seed)
    if json:
        emit_json(summary)
    else:
        from cli.demo_summary import tell

        tell(summary, story.further(summary))


class Demo:
    """One run of the story. Every step is timed; what was started is stopped by `cleanup`."""

    def __init__(self, settings: Settings, backend: str, cleanup: ExitStack) -> None:
        self.seconds: dict[str, float] = {}
        self.backend = backend
        self._cleanup = cleanup
        self._settings = settings
        self._run = uuid.uuid4().hex[:8]
        self._started: set[str] = set()

    def run(self, log: Path | None, lines: int, seed: int) -> dict[str, Any]:
        """The story, start to end; returns and writes the summary."""
        from oddlog.connectors.by_url import open_registry, using_store
        from training.gates import load_gates

        started = time.monotonic()
        load_gates(self._settings.promote.gates)  # asked at the end: a missing file is told before the training
        registry = open_registry(self._settings.registry)
        _refuse_foreign_champion(registry, self._settings)
        # An earlier demo is wiped once it is known that there is something to tell.
        with self._step("traffic", f"reading {log}" if log else f"simulating {lines:,} lines with attacks"):
            raw, labels = _read(log) if log else _simulate(lines, seed)
        _retire_earlier_demo(registry)
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir(parents=True)
        # What the parts say while they work is for whoever looks into a failure, not for the story.
        logging.basicConfig(filename=HOME / "demo.log", level=logging.INFO, force=True)

        with self._step("servers", "starting Kafka and Elasticsearch" if self.backend == "real" else "choosing places"):
            settings = self._settings = self._places()
        first = int(len(raw) * FIRST_SHARE)

        store = self._cleanup.enter_context(using_store(settings.store))
        store.setup()

        with self._step("first_part", f"{first:,} lines arrive; there is no model yet, so they are written as pending"):
            self._ship(raw[:first], labels and labels[:first])
            before = self._enrich()
        with self._step("train", f"training {', '.join(ALGORITHMS)}: three runs in MLflow"):
            runs = self._train(store, registry)
        with self._step("promote", "gates, then the alias champion"):
            promotion = self._promote(store, registry)
        with self._step("serve", "bentoml serve"):
            self._serve()
        with self._step("backfill", "the pending events are scored, in order"):
            backfilled = self._backfill(store)
        with self._step("second_part", f"{len(raw) - first:,} lines arrive, and are scored live"):
            self._ship(raw[first:], labels and labels[first:])
            live = self._enrich()
        with self._step("drift", "the second part against the champion's reference, by Evidently"):
            drift = self._drift(store, registry)

        from cli.demo_summary import summarise

        with self._step("summary", "counting what is in the store"):
            summary = summarise(store, lines=len(raw))
        summary |= {
            "backend": self.backend,
            "log": str(log) if log else f"simulated, seed {seed}",
            "pending_before_training": before.pending,
            "backfilled": backfilled,
            "scored_live": live.scored,
            "runs": runs,
            "champion": promotion,
            "drift_report": drift["report"],
            "drift": drift,
            "seconds": self.seconds | {"total": round(time.monotonic() - started, 1)},
        }
        with whole_file(HOME / "summary.json") as beside:
            beside.write_text(json_.dumps(summary, indent=2, default=str) + "\n")
        return summary

    @contextmanager
    def _step(self, name: str, sentence: str) -> Iterator[None]:
        started = time.monotonic()
        with err.status(f"{sentence} ..."):
            yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        err.print(f"[green]✓[/] {sentence} [dim]{self.seconds[name]:.1f} s[/]", highlight=False)

    def _places(self) -> Settings:
        """Settings of this run: source and store are its own, the registry is the one in force."""
        chosen: dict[str, dict[str, Any]] = {}
        if self.backend == "real":
            kafka, elasticsearch = self._servers()
            # A topic and a prefix of its own: an earlier demo's documents are not counted in.
            chosen["source"] = {
                "url": f"{kafka}/logs.demo.{self._run}",
                "group": f"demo-{self._run}",
            }
            chosen["store"] = {"url": elasticsearch, "prefix": f"oddlog_demo_{self._run}"}
        else:
            chosen["source"] = {
                "url": f"file://{(HOME / 'access.ndjson').resolve()}",
                "group": "demo",
                "state_dir": str(HOME / "places"),
            }
            chosen["store"] = {"url": f"sqlite:///{HOME / 'oddlog.sqlite'}"}
        chosen["drift"] = {"workspace": str(HOME / "drift"), "evidently": str(HOME / "evidently")}
        _write_toml(HOME / "oddlog.toml", chosen)
        # The scorer is not written there: afterwards it is the `bentoml serve` that a person starts.
        from oddlog.stack.process import free_port

        chosen["scorer"] = {"url": f"http://127.0.0.1:{free_port()}"}
        merged = self._settings.model_dump()
        for group, fields in chosen.items():
            merged[group] |= fields
        return type(self._settings)(**merged)

    def _servers(self) -> tuple[str, str]:
        """URLs of broker and Elasticsearch: those that the settings name, else a stack of this machine's."""
        source, store = self._settings.source.url, self._settings.store.url
        if source.startswith("kafka://") and store.startswith("http"):
            return source.rsplit("/", 1)[0], store
        from oddlog.stack import control

        was_up = {name for name, condition in control.status().items() if condition == "up"}
        state = control.up(progress=lambda line: err.print(f"  [dim]{line}[/]", highlight=False))
        self._started = state.urls.keys() - was_up
        for name in self._started:
            self._cleanup.callback(control.down, only=name)
        return state.urls["kafka"], state.urls["elasticsearch"]

    def _ship(self, lines: list[bytes], labels: list[str] | None) -> None:
        from oddlog.connectors.shipping import ship

        ship(
            lines,
            self._settings.source.url,
            labels=labels,
            path="/var/log/demo/access.log",
            settings=self._settings.source,
        )

    def _enrich(self) -> Counts:
        """Run the consumer until everything that has arrived is stored."""
        from oddlog.connectors.by_url import open_source, using_store
        from oddlog.events.privacy import reader_of
        from serving.enrich import Enricher
        from serving.scorers import open_scorer

        with (
            closing(open_source(self._settings.source)) as source,
            using_store(self._settings.store) as store,
            closing(open_scorer(self._settings)) as scorer,
        ):
            reader = reader_of(self._settings.privacy)
            return Enricher(self._settings.enrich, source, store, scorer, reader=reader).run(until_idle=2.0)

    def _train(self, store: Store, registry: Registry) -> list[dict[str, Any]]:
        """One run of each algorithm, on one pull of the events."""
        from training.prepare import prepare
        from training.train import train_prepared

        store.refresh()
        runs = []
        with prepare(self._settings, store=store) as prepared:
            for algorithm in ALGORITHMS:
                trained = train_prepared(self._settings, prepared, algorithm=algorithm, registry=registry)
                registry.set_tags(trained.version, {DEMO_TAG: self._run})
                runs.append({"algorithm": algorithm, "run_id": trained.run_id, "version": trained.version})
        return runs

    def _promote(self, store: Store, registry: Registry) -> dict[str, Any]:
        """Ask the gates. Where they say no to all, the story goes on with the best candidate, and says so."""
        from oddlog.connectors.registry import CHAMPION
        from training.promote import promote, refusal

        outcome = promote(self._settings, store=store, registry=registry)
        refused = None
        if outcome.promoted is None:
            refused = refusal(self._settings, outcome).found
            registry.set_alias(CHAMPION, outcome.judged[0].version.version)
        champion = registry.by_alias(CHAMPION)
        assert champion is not None
        return {
            "version": champion.version,
            "algorithm": champion.algorithm,
            "report": _relative(outcome.report),
            "refused_by_gates": refused,
        }

    def _serve(self) -> None:
        from serving.child import start_service

        port = int(self._settings.scorer.url.rsplit(":", 1)[1])
        self._cleanup.enter_context(start_service(self._settings, port, folder=HOME / "bentoml"))

    def _backfill(self, store: Store) -> int:
        from serving.backfill import backfill
        from serving.scorers import open_scorer

        with closing(open_scorer(self._settings)) as scorer:
            return backfill(store, scorer, lead_in=dt.timedelta(days=self._settings.enrich.lead_in_days)).updated

    def _drift(self, store: Store, registry: Registry) -> dict[str, Any]:
        """Everything later than the champion's training data, against its reference."""
        from monitoring.drift import check_drift

        result = check_drift(self._settings, store, registry)
        return {"verdict": result.verdict, "drifted": result.drifted, "report": _relative(result.report)}

    def further(self, summary: dict[str, Any]) -> list[str]:
        """The commands to look further."""
        from oddlog.connectors.mlflow_connection import ui_command

        chosen = f"ODDLOG_CONFIG={HOME / 'oddlog.toml'}"
        return [
            *(["oddlog stack up"] if self._started else []),
            ui_command(self._settings.registry),
            "bentoml serve",
            f"{chosen} oddlog drift",
            f"xdg-open {summary['drift_report']}",
            f"less {HOME / 'summary.json'}",
        ]


def _refuse_foreign_champion(registry: Registry, settings: Settings) -> None:
    """A champion that no demo made is somebody's work, and is not touched. Raises UsageError."""
    from oddlog.connectors.registry import CHAMPION, PREVIOUS

    for alias in (CHAMPION, PREVIOUS):
        holder = registry.by_alias(alias)
        if holder is not None and DEMO_TAG not in holder.tags:
            raise UsageError(
                f"{settings.registry.url} has a {alias}, version {holder.version}, that no demo made",
                expected="a registry without one: the demo promotes a model of its own",
                mend="ODDLOG_REGISTRY__URL=sqlite:///mlruns/demo-mlflow.db oddlog demo",
            )


def _retire_earlier_demo(registry: Registry) -> None:
    from oddlog.connectors.registry import CHAMPION, PREVIOUS

    for alias in (CHAMPION, PREVIOUS):
        registry.delete_alias(alias)
    for version in registry.versions():
        if DEMO_TAG in version.tags and version.tags.get("status") == "candidate":
            registry.set_tags(version.version, {"status": "retired"})


def _relative(path: Path) -> str:
    """As a person in the working folder would type it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _simulate(lines: int, seed: int) -> tuple[list[bytes], list[str] | None]:
    from oddlog.simulation.traffic import simulate

    traffic = simulate(seed=seed, lines=lines, days=SIMULATED_DAYS)
    return [line.encode() for line in traffic.lines], traffic.labels


def _read(log: Path) -> tuple[list[bytes], list[str] | None]:
    """The lines of a log, and its labels where `<log>.labels` has one for each line."""
    from oddlog.events.logfile import read_log

    if not log.is_file():
        raise UsageError(f"no file at {log}", expected="an access log, plain or .gz", mend="oddlog demo --log FILE")
    lines = read_log(log)
    beside = log.with_name(log.name.removesuffix(".gz") + ".labels")
    if not beside.is_file():
        return lines, None
    labels = beside.read_text().splitlines()
    if len(labels) != len(lines):
        raise UsageError(f"{beside} has {len(labels):,} labels", expected=f"{len(lines):,}, one for each line of {log}")
    return lines, labels


def _write_toml(path: Path, groups: dict[str, dict[str, Any]]) -> None:
    """Settings of this run as a file for ODDLOG_CONFIG. All values are text here, which JSON quotes as TOML does."""
    lines = ["# Made by `oddlog demo`: its source and store."]
    for group, fields in groups.items():
        lines += ["", f"[{group}]", *(f"{name} = {json_.dumps(value)}" for name, value in fields.items())]
    path.write_text("\n".join(lines) + "\n")
