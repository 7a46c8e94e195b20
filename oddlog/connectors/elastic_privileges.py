"""What the user of an Elasticsearch may do of what oddlog does. The same lists are the role in deploy/elasticsearch."""

from __future__ import annotations

from oddlog.connectors.elastic_connection import ElasticConnection, ElasticError

CLUSTER = ("monitor", "manage_index_templates")
INDICES = ("auto_configure", "read", "write", "maintenance", "view_index_metadata")


def denied(connection: ElasticConnection, prefix: str) -> list[str]:
    """The privileges that the user lacks, each as words; none where security is off.

    Raises StoreUnavailable, and StoreRefused where the user is not known."""
    pattern = f"{prefix}-*"
    asked = {"cluster": list(CLUSTER), "index": [{"names": [pattern], "privileges": list(INDICES)}]}
    try:
        found = connection.json("POST", "/_security/user/_has_privileges", asked)
    except ElasticError:  # without security there is no such request
        return []
    lacking = [f"{name} on the cluster" for name in CLUSTER if not found["cluster"][name]]
    return lacking + [f"{name} on {pattern}" for name in INDICES if not found["index"][pattern][name]]
