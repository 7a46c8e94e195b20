"""What the challenger's lane costs the main path: `oddlog enrich` with a challenger, and without, in turn.

    python -m benchmarks.shadow
    python -m benchmarks.shadow --share 1 --challenger autoencoder

Real Kafka and Elasticsearch (started here, or TEST_KAFKA_URL and TEST_ELASTICSEARCH_URL), a real `bentoml serve` that
holds both models. The champion is `surprise`; the challenger scores a share of the clients. Rates are of records that
the consumer has committed, from its first batch to its last; what the challenger has scored by then is told beside. It
does so some seconds after the commit (`enrich.shadow_after_seconds`): a run has to last several times as long.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.consumed import looks_until
from benchmarks.machine import cpu_seconds, machine
from benchmarks.place import ENRICH, Place, place, running
from benchmarks.program import end_when_asked, told_by_the_clock
from benchmarks.tables import markdown, publish
from benchmarks.traffic import produce, traffic
from oddlog.connectors.by_url import open_registry
from oddlog.connectors.registry import CHALLENGER
from oddlog.stack.process import free_port

CHAMPION_ALGORITHM = "surprise"


def run(where: Place, topic: str, records: int, *, number: int, share: float) -> dict[str, Any]:
    """One run over all records: events a second, processor microseconds an event, and what the shadow did."""
    prefix = f"{where.name}_{number}"
    where.make_indices(prefix)
    port = free_port(*range(29_300, 29_400))
    variables = where.consumer_variables(topic, prefix) | {
        "ODDLOG_ENRICH__METRICS_PORT": str(port),
        "ODDLOG_ENRICH__SHADOW_SHARE": str(share),
    }
    log = where.folder / f"{prefix}.log"
    first: tuple[float, int, dict[str, float]] | None = None
    with running(where, ENRICH, variables, log) as process:

        def cpu() -> dict[str, float]:
            return {"consumer": cpu_seconds(process.pid), **where.cpu()}

        for seen in looks_until(records, port, process, log):
            if first is None and seen.records:
                first = seen.moment, seen.records, cpu()
        assert first is not None
        spent = cpu()
    found = where.count(prefix)
    where.remove_indices(prefix)
    if found != records:
        raise SystemExit(f"{found:,} documents of {records:,}")
    events = records - first[1]
    return {
        "share": share,
        "rate": events / (seen.moment - first[0]),
        "cpu": {name: 1e6 * (seconds - first[2][name]) / events for name, seconds in spent.items()},
        "shadow_scored": seen.shadow_scored,
        "shadow_dropped": seen.shadow_dropped,
    }


def table(runs: Sequence[dict[str, Any]], challenger: str) -> str:
    """Markdown: both ways, then the ratio by round."""
    rows = []
    rates: dict[float, list[float]] = {}
    for share in sorted({one["share"] for one in runs}):
        chosen = [one for one in runs if one["share"] == share]
        rates[share] = [one["rate"] for one in chosen]
        middle = statistics.median(rates[share])
        spent = {name: statistics.median(one["cpu"][name] for one in chosen) for name in chosen[0]["cpu"]}
        rows.append(
            [
                f"{share:.0%} of the clients" if share else "none",
                f"{middle:,.0f}",
                " ".join(f"{rate:,.0f}" for rate in rates[share]),
                *(f"{spent.get(name, 0.0):.1f}" for name in ("consumer", "scorer", "elasticsearch")),
                f"{statistics.median(one['shadow_scored'] for one in chosen):,.0f}",
                f"{statistics.median(one['shadow_dropped'] for one in chosen):,.0f}",
            ]
        )
    head = [
        f"challenger ({challenger}) scores", "events/s (median)", "by round", "consumer, us/event", "scorer, us/event",
        "elasticsearch, us/event", "scored by it", "dropped",
    ]  # fmt: skip
    without, with_it = rates[0.0], rates[max(rates)]
    ratios = [a / b for a, b in zip(with_it, without, strict=True)]
    by_round = " ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"{markdown(head, rows)}\n\nwith / without: {statistics.median(ratios):.2f} (by round: {by_round})"


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=2, help="runs that are not counted")
    parser.add_argument("--share", type=float, default=0.1, help="of the clients (the default of `oddlog enrich`)")
    parser.add_argument("--challenger", choices=["iforest", "autoencoder"], default="iforest")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where the figures go; default: benchmarks/results/shadow.json")
    given = parser.parse_args()
    say = told_by_the_clock()
    end_when_asked()
    about = machine()
    made = traffic(given.seed, 20_000, given.records)
    runs = []
    with place(made.fitted, [CHAMPION_ALGORITHM, given.challenger], say) as where:
        topic = f"{where.name}-traffic"
        produce(where.kafka, topic, made.consumed)
        open_registry(where.settings.registry).set_alias(CHALLENGER, where.versions[given.challenger])
        plan = [(False, given.share)] * given.warm_up
        for number in range(given.rounds):
            plan += [(True, share) for share in ([0.0, given.share] if number % 2 == 0 else [given.share, 0.0])]
        for number, (counted, share) in enumerate(plan):
            one = run(where, topic, given.records, number=number, share=share)
            say(f"challenger scores {share:.0%}: {one['rate']:,.0f} events/s{'' if counted else ' (warming up)'}")
            if counted:
                runs.append(one)
    publish(
        "shadow", about, {"challenger": given.challenger, "runs": runs}, [table(runs, given.challenger)], given.json
    )


if __name__ == "__main__":
    main()
