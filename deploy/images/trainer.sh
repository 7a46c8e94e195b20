#!/bin/sh
# The trainer's loop: a candidate of each algorithm, then the gates. What a round failed at is in its log; the
# champion stays as it is.
set -u
while true; do
  for algorithm in iforest autoencoder surprise; do
    oddlog train --algorithm "$algorithm" || echo "train $algorithm ended with $?"
  done
  oddlog promote || echo "promote ended with $?"
  oddlog backfill || echo "backfill ended with $?"
  sleep "${TRAIN_EVERY_SECONDS:-86400}"
done
