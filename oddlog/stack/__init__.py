"""Real Kafka and Elasticsearch as child processes of this machine, without Docker. No client lives here."""

from oddlog.stack.artifacts import missing_tools
from oddlog.stack.control import DEFAULT_STATE_DIR, down, read_state, status, up
from oddlog.stack.elasticsearch_server import ElasticsearchOptions
from oddlog.stack.kafka_server import KafkaOptions
from oddlog.stack.state import Server, StackState

__all__ = [
    "DEFAULT_STATE_DIR",
    "ElasticsearchOptions",
    "KafkaOptions",
    "Server",
    "StackState",
    "down",
    "missing_tools",
    "read_state",
    "status",
    "up",
]
