#!/bin/sh
# The trainer's loop: a candidate of each algorithm, then the gates. What a round failed at is in its log; the
# champion stays as it is. Where there was nothing to train on, as after the first start, the next round comes sooner.
set -u
while true; do
  pause=${TRAIN_RETRY_SECONDS:-600}
  for algorithm in iforest autoencoder surprise; do
    oddlog train --algorithm "$algorithm" && pause=${TRAIN_EVERY_SECONDS:-86400} || echo "train $algorithm ended with $?"
  done
  oddlog promote || echo "promote ended with $?"
  oddlog backfill || echo "backfill ended with $?"
  sleep "$pause"
done
