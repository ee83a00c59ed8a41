#!/usr/bin/env bash
# Aligns the quickstart's projector anew, and puts it into prism_tune/quickstart/aligned: a quarter
# of an hour on two cores. For developers: the projector ships with prism_tune.
#
#   bash scripts/align_quickstart.sh [key=value ...]
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/stage_environment.sh
. "$root/scripts/stage_environment.sh"
config=configs/experiments/quickstart_projector.yaml
bash scripts/setup.sh quickstart
"$venv/bin/python" -m prism_tune prepare "$config"
# Two processes of one thread do in a third less time what one of two threads does.
OMP_NUM_THREADS=1 "$venv/bin/python" -m torch.distributed.run --nproc_per_node=2 \
  -m prism_tune train "$config" "$@"
exec "$venv/bin/python" scripts/ship_projector.py runs/quickstart_projector
