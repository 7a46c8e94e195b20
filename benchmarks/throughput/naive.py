"""The consumer of most tutorials: for each record one regex, one scikit-learn `predict`, one `index` call.

Five features as tutorials take them (status, bytes, length of the URL, hour, method), an IsolationForest with
scikit-learn's defaults, elasticsearch-py, offsets committed automatically by kafka-python.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from elasticsearch import Elasticsearch
from kafka import KafkaConsumer
from sklearn.ensemble import IsolationForest

from benchmarks.throughput.asked import Asked, asked

LINE = re.compile(r'(\S+) \S+ (\S+) \[([^\]]+)\] "(.*?)" (\d+) (\d+|-) "(.*?)" "(.*?)"')


def read(line: str) -> dict[str, Any]:
    """The fields of a log line."""
    found = LINE.match(line)
    assert found is not None, line
    client, _, time, request, status, size, referrer, agent = found.groups()
    method, url, version = request.split(" ") if request.count(" ") == 2 else ("", request, "")
    return {
        "client": client, "time": datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z"), "method": method, "url": url,
        "version": version, "status": int(status), "bytes": 0 if size == "-" else int(size),
        "referrer": referrer, "agent": agent,
    }  # fmt: skip


def features(event: dict[str, Any]) -> list[float]:
    """What the forest sees."""
    return [event["status"], event["bytes"], len(event["url"]), event["time"].hour, float(event["method"] == "POST")]


def main(where: Asked) -> None:
    """Fit, then consume until killed."""
    model = IsolationForest(random_state=0).fit(
        [features(read(line)) for line in Path(where.fitted).read_text().splitlines()]
    )
    elastic = Elasticsearch(where.elastic)
    consumer = KafkaConsumer(
        where.topic, bootstrap_servers=where.servers, group_id=where.group, auto_offset_reset="earliest"
    )
    for message in consumer:
        envelope = json.loads(message.value)
        event = read(envelope["message"])
        values = features(event)
        prediction = model.predict([values])[0]
        elastic.index(
            index=f"{where.prefix}-events-{event['time']:%Y.%m.%d}",
            id=f"e1-{message.topic}-{message.partition}-{message.offset}",
            document={
                "@timestamp": event["time"].isoformat(),
                "source": {"address": event["client"], "ip": event["client"]},
                "http": {
                    "request": {"method": event["method"], "referrer": event["referrer"]},
                    "response": {"status_code": event["status"], "body": {"bytes": event["bytes"]}},
                    "version": event["version"],
                },
                "url": {"original": event["url"]},
                "user_agent": {"original": event["agent"]},
                "host": envelope["host"],
                "event": {"original": envelope["message"]},
                "features": dict(zip(("status", "bytes", "url_length", "hour", "post"), values, strict=True)),
                "anomaly": {"is_anomaly": bool(prediction == -1)},
            },
        )


if __name__ == "__main__":
    main(asked(__doc__))
