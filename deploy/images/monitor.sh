#!/bin/sh
# The monitor's loop: the last hour against the champion's reference. Exit code 1 means drift, which is a finding
# and not a fault: it is in the log, in MLflow and in the store.
set -u
while true; do
  sleep "${DRIFT_EVERY_SECONDS:-3600}"
  oddlog drift --last 1h || echo "drift ended with $?"
done
