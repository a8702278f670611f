#!/usr/bin/env bash
# Trains on several machines with the torch backend: torchrun starts one process per GPU.
#
#   on each machine:  torch_two_machines.sh one:29500 2 8 images /shared/runs/s16 --model S/16
#
# Change: the address (host:port of one of the machines; the port must be open), the number of
# machines, the GPUs of each, the images (every machine reads them at this path) and the run folder. The rest
# goes to `keras-vit train`.
# If a process dies, torchrun starts all of them again, and the run continues from its last checkpoint; one
# death can use up two restarts. If a machine dies, start the same command on it again within ten minutes, for
# which the others wait; if it is the one at the address, start it on all.
# torchrun numbers the machines itself, so any of them can become the chief, which writes the run folder: put
# the folder on a disk that all share. We leave out --node-rank, which would fix the chief: machines
# started so do not agree on restarts, and after a death they can wait for each other forever.
set -euo pipefail
if (($# < 5)); then
  echo "usage: $0 HOST:PORT MACHINES GPUS_EACH DATA OUT [options of keras-vit train]" >&2
  exit 2
fi
address=$1 nodes=$2 gpus=$3 data=$4 out=$5
shift 5

export KERAS_BACKEND=torch
exec torchrun --nnodes "$nodes" --nproc-per-node "$gpus" --max-restarts 6 \
  --rdzv-backend c10d --rdzv-endpoint "$address" --rdzv-id keras-vit \
  -m keras_vit train --data "$data" --out "$out" --distribute data --nodes "$nodes" "$@"
