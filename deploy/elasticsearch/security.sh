#!/bin/bash
# Makes what writes with least privilege: role and user `oddlog`, and sets the password of Kibana's own user.
# Harmless when run again.
set -euo pipefail

put() {
  curl -sf -u "elastic:${ELASTIC_PASSWORD}" -H 'Content-Type: application/json' \
    -X "$1" "${ELASTICSEARCH_URL}$2" -d "$3" >/dev/null || { echo "failed: $1 $2" >&2; exit 1; }
}

put PUT /_security/role/oddlog "$(cat "$(dirname "$0")/role.json")"
put PUT /_security/user/oddlog "{\"password\": \"${ODDLOG_PASSWORD}\", \"roles\": [\"oddlog\"]}"
put POST /_security/user/kibana_system/_password "{\"password\": \"${KIBANA_PASSWORD}\"}"
echo "role and user oddlog, and Kibana's password, are in place"
