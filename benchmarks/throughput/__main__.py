"""Events a second from Kafka, scored, into Elasticsearch: `oddlog enrich` beside others, in one run.

    python -m benchmarks.throughput                       all sides, about ten minutes
    python -m benchmarks.throughput --sides product,constant --records 40000 --rounds 1

Real Kafka and Elasticsearch (started here, or TEST_KAFKA_URL and TEST_ELASTICSEARCH_URL), a real `bentoml serve`. The
records are written before; every side reads them in a group of its own into indices of its own, one side after the
other, in rounds of changing order. Exit code 1 when a side's documents are not all there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.place import Place, Say, place
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import publish
from benchmarks.throughput import sides
from benchmarks.throughput.quix_features import tables_of
from benchmarks.throughput.report import as_document, tables
from benchmarks.throughput.rounds import Round, Rounds
from benchmarks.tools import QUIX, NoEnvironment, environment_with
from benchmarks.traffic import produce, traffic
from serving.client import HttpScorer

SIDES = ("product", "constant", "bare", "naive", "quix")
MODELS = ("surprise", "iforest")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--quix-records", type=int, default=20_000)
    parser.add_argument("--naive-records", type=int, default=500)
    parser.add_argument("--fitted", type=int, default=20_000, help="lines that the models are fitted on")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--warm-up", type=int, default=4, help="runs of the first side that are not counted")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"of {', '.join(SIDES)}, with commas between")
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/throughput.json")
    return parser.parse_args()


def main() -> None:
    """Run, print, write."""
    given = arguments()
    begun = time.monotonic()
    say = told_by_the_clock()
    end_when_asked()
    about = machine()
    made = traffic(given.seed, given.fitted, given.records)
    models = given.models.split(",")
    left_out: dict[str, str] = {}
    with place(made.fitted, models, say) as where:
        chosen = _sides(given, left_out)
        for name, reason in left_out.items():
            say(f"without {name}: {reason}")
        topics = {}
        for count in sorted({side.records for side in chosen}, reverse=True):
            topics[count] = f"{where.name}-{count}"
            size = produce(where.kafka, topics[count], made.consumed[:count])
            say(f"{count:,} records of {size} bytes on average are in the topic {topics[count]}")
        (where.folder / "fitted.log").write_text("\n".join(made.fitted))
        _write_tables(where)
        found = list(_measure(where, chosen, topics, models, given.rounds, given.warm_up, say))
    document = as_document(found, {"machine": about, "left_out": left_out, "seconds": time.monotonic() - begun})
    shown = [tables(document), *(f"Without {name}: {reason}" for name, reason in left_out.items())]
    publish("throughput", about, document, shown, given.json)
    problems = [f"{one.side} ({one.model}): {problem}" for one in found for problem in one.problems]
    for problem in problems:
        print(problem, file=sys.stderr)
    raise SystemExit(1 if problems else 0)


def _sides(given: argparse.Namespace, left_out: dict[str, str]) -> list[sides.Side]:
    chosen = []
    for name in given.sides.split(","):
        if name == "naive":
            chosen.append(sides.naive(given.naive_records))
        elif name == "quix":
            try:
                python = str(environment_with(QUIX) / "python")
                chosen.append(sides.quix(min(given.quix_records, given.records), python))
            except NoEnvironment as error:
                left_out[name] = str(error)
        else:
            chosen.append(
                {"product": sides.product, "constant": sides.constant, "bare": sides.bare}[name](given.records)
            )
    return chosen


def _write_tables(where: Place) -> None:
    """The frozen tables of each model, for the side that computes features without our code."""
    with HttpScorer(where.settings.scorer) as scorer:
        for algorithm, version in where.versions.items():
            where.promote(algorithm)
            tables_file = where.folder / f"tables-{algorithm}.json"
            tables_file.write_text(json.dumps(tables_of(scorer.baseline(version))))


def _measure(
    where: Place,
    chosen: Sequence[sides.Side],
    topics: dict[int, str],
    models: Sequence[str],
    rounds: int,
    warm_up: int,
    say: Say,
) -> Iterator[Round]:
    runs = Rounds(where, topics)
    for model in models:
        where.promote(model)
        # The other models change nothing for the sides that ask no scorer.
        wanted = [side for side in chosen if model == models[0] or side.name in {"product", "constant"}]
        for _ in range(warm_up if model == models[0] else 0):
            warm = wanted[0]
            say(f"warming up: {warm.name}, {runs.run(warm, model).rate:,.0f} events/s, not counted")
        for number in range(rounds):
            for side in wanted if number % 2 == 0 else wanted[::-1]:
                one = runs.run(side, model)
                problems = f"; {'; '.join(one.problems)}" if one.problems else ""
                say(f"{model}, round {number + 1}: {side.name}, {one.rate:,.0f} events/s{problems}")
                yield one


if __name__ == "__main__":
    main()
