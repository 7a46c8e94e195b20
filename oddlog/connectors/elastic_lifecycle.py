"""Deleting days by Elasticsearch's own lifecycle, where the server has one. By hand: `elastic_upkeep.py`."""

from __future__ import annotations

import logging
from typing import Any

from oddlog.connectors.elastic_connection import ElasticConnection, ElasticError
from oddlog.connectors.elastic_template import EVENTS, templates
from oddlog.connectors.elastic_upkeep import template_digest

log = logging.getLogger(__name__)


def wanted_templates(connection: ElasticConnection, prefix: str, keep_days: int | None) -> dict[str, dict[str, Any]]:
    """The templates as they should be: event indices under a deleting policy where `keep_days` is set and the server
    has lifecycles, which is asked first: one that has none refuses a template that names a policy.

    Nothing is asked where that template is there already, so that the consumer's user needs no privilege for it."""
    if keep_days is None:
        return templates(prefix)
    deleting = templates(prefix, _policy_name(prefix, keep_days))
    name = f"{prefix}-{EVENTS}"
    if template_digest(connection, name) == deleting[name]["_meta"]["digest"] or _has_lifecycle(connection):
        return deleting
    log.info("this Elasticsearch has no lifecycle: days go by `oddlog retention --keep-days %d`", keep_days)
    return templates(prefix)


def put_templates(connection: ElasticConnection, prefix: str, keep_days: int | None) -> None:
    """Put those that are missing or of another oddlog, and before them the policy that they name.

    Indices that exist stay as they are. Raises StoreRefused without the privileges `manage_index_templates` and,
    for a policy, `manage_ilm`."""
    for name, template in wanted_templates(connection, prefix, keep_days).items():
        if template_digest(connection, name) == template["_meta"]["digest"]:
            continue
        if keep_days is not None and "lifecycle" in template["template"]["settings"]["index"]:
            connection.json("PUT", f"/_ilm/policy/{_policy_name(prefix, keep_days)}", _policy(keep_days))
        connection.json("PUT", f"/_index_template/{name}", template)


def _has_lifecycle(connection: ElasticConnection) -> bool:
    try:
        connection.json("GET", "/_ilm/status")
    except ElasticError:  # no such request
        return False
    return True


def _policy_name(prefix: str, keep_days: int) -> str:
    """With its days in the name: a policy is never changed under indices that have it."""
    return f"{prefix}-{EVENTS}-keep-{keep_days}-days"


def _policy(keep_days: int) -> dict[str, Any]:
    """Today and `keep_days` before it stay, as with `oddlog retention`; age counts from the beginning of the day."""
    phases = {"hot": {"actions": {}}, "delete": {"min_age": f"{keep_days + 1}d", "actions": {"delete": {}}}}
    return {"policy": {"_meta": {"written_by": "oddlog"}, "phases": phases}}
