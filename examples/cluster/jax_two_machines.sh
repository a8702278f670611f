#!/usr/bin/env bash
# Trains on several machines with the JAX backend: one process per machine, all GPUs of each.
#
#   on the first:   jax_two_machines.sh one:12345 2 0 images runs/s16 --model S/16
#   on the second:  jax_two_machines.sh one:12345 2 1 images runs/s16 --model S/16
#
# Change: the address (host:port of the first machine; the port must be open), the number of machines, the
# images (every machine reads them at this path) and the run folder. The rest goes to `keras-vit train`.
# The first machine is the chief: it alone writes the run folder. If a machine dies the others end too; start
# the same commands again, and the run continues from its last checkpoint. For that the chief must
# still have the folder: on its own disk, or on a shared one.
set -euo pipefail
if (($# < 5)); then
  echo "usage: $0 HOST:PORT MACHINES INDEX DATA OUT [options of keras-vit train]" >&2
  exit 2
fi
address=$1 nodes=$2 index=$3 data=$4 out=$5
shift 5

export KERAS_BACKEND=jax
export KERAS_DISTRIBUTION_JOB_ADDRESSES=$address
export KERAS_DISTRIBUTION_NUM_PROCESSES=$nodes
export KERAS_DISTRIBUTION_PROCESS_ID=$index
exec keras-vit train --data "$data" --out "$out" --distribute data --nodes "$nodes" "$@"
