"""The same work in Quix Streams, as its users would write it. It runs in an environment of its own.

A JSON topic, a function that parses, a stateful function that computes the features (state by key, which is the
client), and a batching sink that asks the scorer once for each batch and writes with elasticsearch-py's `bulk`
(Quix's own Elasticsearch sink writes to one index and scores nothing; what it does, this does).
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
from elasticsearch import Elasticsearch, helpers
from quixstreams import Application, State
from quixstreams.sinks import BatchingSink, SinkBatch

from benchmarks.throughput.asked import Asked, asked
from benchmarks.throughput.quix_features import Features

BATCH = 4_096
LINE = re.compile(
    r'(\S+) \S+ (\S+) \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d+) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"'
)
REQUEST = re.compile(r"([A-Z]+) (\S+) HTTP/([0-9.]+)$")


def parsed(envelope: dict[str, Any]) -> dict[str, Any]:
    """The event of a Filebeat envelope, as it will be stored."""
    found = LINE.match(envelope["message"])
    assert found is not None
    client, user, time, request, status, size, referrer, agent = found.groups()
    moment = datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z")
    sound = REQUEST.match(request)
    method, target, version = sound.groups() if sound else ("", request, None)
    path, _, query = target.partition("?")
    event: dict[str, Any] = {
        "@timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "source": {"address": client, "ip": client},
        "http": {
            "request": {"method": method},
            "version": version,
            "response": {"status_code": int(status), "body": {"bytes": None if size == "-" else int(size)}},
        },
        "url": {"original": target, "path": path},
        "host": envelope["host"],
        "log": {"file": {"path": envelope["log"]["file"]["path"]}},
        "event": {"original": envelope["message"]},
    }
    if query:
        event["url"]["query"] = query
    if referrer != "-":
        event["http"]["request"]["referrer"] = referrer
    if agent != "-":
        event["user_agent"] = {"original": agent}
    if user != "-":
        event["user"] = {"name": user}
    return event


class ScoringSink(BatchingSink):
    """Scores a batch with one request, then writes it in bulk."""

    def __init__(self, where: Asked, names: list[str]) -> None:
        super().__init__()
        self._where = where
        self._names = names
        self._elastic: Any = None
        self._http = httpx.Client(timeout=60)

    def setup(self) -> None:
        self._elastic = Elasticsearch(self._where.elastic)

    def write(self, batch: SinkBatch) -> None:
        for chunk in batch.iter_chunks(n=BATCH):
            items = list(chunk)
            scores = self._scores([[item.value["features"][name] for name in self._names] for item in items])
            model = scores["model"]
            columns = (scores[name] for name in ("score", "severity", "is_anomaly", "reasons"))
            actions = []
            for item, score, severity, is_anomaly, reasons in zip(items, *columns, strict=True):
                event = item.value
                event["anomaly"] = {
                    "status": "scored",
                    "score": score,
                    "severity": severity,
                    "is_anomaly": is_anomaly,
                    "threshold": model["threshold"],
                    "threshold_version": model["threshold_version"],
                    "model": {"name": model["model_name"], "version": model["model_version"]},
                    "baseline": model["baseline_digest"],
                }
                if reasons:
                    event["anomaly"]["reasons"] = reasons
                event["oddlog"] = {
                    "position": {
                        "epoch": "e1", "topic": batch.topic, "partition": batch.partition, "offset": item.offset,
                    }
                }  # fmt: skip
                actions.append(
                    {
                        "_op_type": "create",
                        "_index": f"{self._where.prefix}-events-{event['@timestamp'][:10].replace('-', '.')}",
                        "_id": f"e1-{batch.topic}-{batch.partition}-{item.offset}",
                        "_source": event,
                    }
                )
            helpers.bulk(self._elastic, actions, chunk_size=BATCH)

    def _scores(self, rows: list[list[float]]) -> Any:
        answer = self._http.post(
            f"{self._where.scorer}/v1/score",
            content=orjson.dumps({"columns": self._names, "rows": rows}),
            headers={"content-type": "application/json"},
        )
        return orjson.loads(answer.raise_for_status().content)


def main(where: Asked) -> None:
    """Consume until killed."""
    features = Features(Path(where.state) / "tables.json")

    def with_features(event: dict[str, Any], state: State) -> dict[str, Any]:
        values, client = features.of(
            {
                "url": event["url"]["original"],
                "path": event["url"]["path"],
                "method": event["http"]["request"]["method"],
                "status": event["http"]["response"]["status_code"],
                "seconds": datetime.fromisoformat(event["@timestamp"]).timestamp(),
            },
            state.get("client") or {},
        )
        state.set("client", client)
        event["features"] = dict(zip(features.names, values, strict=True))
        return event

    application = Application(
        broker_address=where.servers,
        consumer_group=where.group,
        auto_offset_reset="earliest",
        state_dir=str(Path(where.state) / "state"),
        commit_every=BATCH,
        loglevel="WARNING",
    )
    events = application.dataframe(application.topic(where.topic, key_deserializer="str", value_deserializer="json"))
    events = events.apply(parsed).apply(with_features, stateful=True)
    events.sink(ScoringSink(where, features.names))
    application.run()


if __name__ == "__main__":
    main(asked(__doc__))
