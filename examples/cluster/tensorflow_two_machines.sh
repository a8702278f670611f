#!/usr/bin/env bash
# Trains on several machines with the TensorFlow backend: one process per machine, all GPUs of each.
#
#   on the first:   tensorflow_two_machines.sh one:12345,two:12345 0 images runs/s16 --model S/16
#   on the second:  tensorflow_two_machines.sh one:12345,two:12345 1 images runs/s16 --model S/16
#
# Change: the addresses (host:port of every machine, the same list everywhere; the ports must be open), the
# images (every machine reads them at this path) and the run folder. The rest goes to `keras-vit train`.
# The first machine is the chief: it alone writes the run folder. If a machine dies the others end too; start
# the same commands again, and the run continues from its last checkpoint. For that the chief must
# still have the folder: on its own disk, or on a shared one.
set -euo pipefail
if (($# < 4)); then
  echo "usage: $0 HOST:PORT,HOST:PORT INDEX DATA OUT [options of keras-vit train]" >&2
  exit 2
fi
addresses=$1 index=$2 data=$3 out=$4
shift 4

commas=${addresses//[^,]/}
nodes=$((${#commas} + 1))
task="{\"type\": \"worker\", \"index\": $index}"
workers="\"${addresses//,/\", \"}\""

export KERAS_BACKEND=tensorflow
export TF_CONFIG="{\"cluster\": {\"worker\": [$workers]}, \"task\": $task}"
exec keras-vit train --data "$data" --out "$out" --distribute data --nodes "$nodes" "$@"
