#!/bin/sh
# send-new-lines.sh FILE BROKERS TOPIC: what FILE has grown by since the last call, to Kafka, keyed by client.
# For cron or a systemd timer: kcat reads a pipe in large blocks, so `tail -F FILE | kcat` would hold lines back.
# The place is kept in FILE.sent (or in $PLACE), and moved when the brokers have acknowledged: a call that dies in
# between sends its lines again, as new records.
set -eu
place=${PLACE:-$1.sent}
sent=$(cat "$place" 2>/dev/null || echo 0)
size=$(wc -c <"$1")
[ "$size" -ge "$sent" ] || sent=0 # truncated, or rotated away: what the old file still had is lost to this script

grown() { tail -c "+$((sent + 1))" "$1" | head -c "$((size - sent))"; }
lines=$(grown "$1" | wc -l) # a last line without its end waits for the next call
[ "$lines" -gt 0 ] || exit 0
# The key is the line up to its first space. murmur2 is what other clients of Kafka hash by; librdkafka's own
# default would put a client's lines into two partitions where another sender is at work, too.
grown "$1" | head -n "$lines" | LC_ALL=C sed 's/^[^ ]*/&\t&/' | kcat -P -b "$2" -t "$3" -K '\t' \
  -X topic.partitioner=murmur2_random -X enable.idempotence=true -X message.max.bytes=16000000
echo "$((sent + $(grown "$1" | head -n "$lines" | wc -c)))" >"$place.new"
mv "$place.new" "$place"
