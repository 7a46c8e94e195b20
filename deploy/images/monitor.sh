#!/bin/sh
# The monitor's loop: the last day against the champion's reference, which covers days: a single hour would always
# differ from it. Exit code 1 means drift, which is a finding and not a fault: it is in the log, in MLflow, in the store.
set -u
while true; do
  sleep "${DRIFT_EVERY_SECONDS:-21600}"
  oddlog drift --last 1d || echo "drift ended with $?"
done
