"""What a rate of events needs, worked out from what `benchmarks.throughput` measured. Runs nothing itself.

    python -m benchmarks.scaling benchmarks/results/throughput.json --rate 100000

An event costs each process some processor microseconds; at a rate that is so many cores, of which only a share may be
busy (--busy) so that bursts and a lost machine are caught up with. A consumer process and a scorer's worker count as
one core each; Elasticsearch and Kafka are given in cores and in nodes of --node-cores; with a replica Elasticsearch
does its work twice.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROCESSES = ("consumer", "scorer", "kafka", "elasticsearch")


def costs(document: Mapping[str, Any], model: str) -> dict[str, float]:
    """Processor microseconds an event of the product, by process: median over the rounds of a model."""
    chosen = [one["cpu"] for one in document["rounds"] if (one["side"], one["model"]) == ("product", model)]
    if not chosen or any(name not in cpu for cpu in chosen for name in PROCESSES):
        raise SystemExit(f"the file holds no processor times of the product with {model}: run all servers by it")
    return {name: statistics.median(cpu[name] for cpu in chosen) for name in PROCESSES}


def needs(cost: Mapping[str, float], rate: float, *, busy: float, node_cores: int, replicas: int) -> dict[str, float]:
    """Cores by process, and processes, nodes and partitions.

    >>> cost = {"consumer": 70.0, "scorer": 7.0, "kafka": 7.0, "elasticsearch": 35.0}
    >>> found = needs(cost, 100_000, busy=0.7, node_cores=8, replicas=1)
    >>> found["consumers"], found["partitions"], found["scorer_workers"], found["elasticsearch_nodes"]
    (10, 20, 1, 2)
    """
    cores = {name: rate * spent / 1e6 / busy for name, spent in cost.items()}
    cores["elasticsearch"] *= 1 + replicas

    def whole(value: float) -> int:
        return math.ceil(round(value, 6))

    consumers = whole(cores["consumer"])
    return {
        **{f"{name}_cores": value for name, value in cores.items()},
        "consumers": consumers,
        "partitions": 2 * consumers,
        "scorer_workers": whole(cores["scorer"]),
        "kafka_nodes": max(3, whole(cores["kafka"] / node_cores)),
        "elasticsearch_nodes": max(1 + replicas, whole(cores["elasticsearch"] / node_cores)),
    }


def main() -> None:
    """Read, work out, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON that benchmarks.throughput wrote")
    parser.add_argument("--rate", type=float, default=100_000.0, help="events a second")
    parser.add_argument("--busy", type=float, default=0.7, help="share of a core that may be busy")
    parser.add_argument("--node-cores", type=int, default=8)
    parser.add_argument("--replicas", type=int, default=1)
    given = parser.parse_args()
    document = json.loads(given.results.read_text())
    models = list(dict.fromkeys(one["model"] for one in document["rounds"] if one["side"] == "product"))
    print(f"{given.rate:,.0f} events/s, cores {given.busy:.0%} busy, {given.replicas} replica(s)\n")
    print("| model | part | us/event | cores | that is |\n| --- | --- | ---: | ---: | --- |")
    for model in models:
        cost = costs(document, model)
        found = needs(
            cost, given.rate, busy=given.busy, node_cores=given.node_cores, replicas=given.replicas
        )  # fmt: skip
        that_is = {
            "consumer": f"{found['consumers']:.0f} `oddlog enrich`, {found['partitions']:.0f} partitions",
            "scorer": f"{found['scorer_workers']:.0f} workers of `bentoml serve`",
            "kafka": f"{found['kafka_nodes']:.0f} brokers (three at least, for replicas)",
            "elasticsearch": f"{found['elasticsearch_nodes']:.0f} data nodes of {given.node_cores} cores, "
            f"{found['elasticsearch_nodes']:.0f} shards a day",
        }
        for name in PROCESSES:
            print(f"| {model} | {name} | {cost[name]:.1f} | {found[f'{name}_cores']:.1f} | {that_is[name]} |")


if __name__ == "__main__":
    main()
