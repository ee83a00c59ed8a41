#!/usr/bin/env bash
# Do other trainers take our subsets? Their own loaders read what `subset export --as` writes.
#
#   bash scripts/check_peers.sh [PEER ...]        trl llamafactory ms_swift (default: all three)
#
# Each peer gets an environment of its own (gigabytes, minutes; kept for the next time), for they ask
# for versions of transformers and datasets that exclude one another. Six drawn records go out by
# prism_tune's environment: text only, two images, several turns, an `<image>` at the end, a system
# line. TRL then trains three steps on them, LLaMA-Factory tokenises them, ms-swift loads them and
# opens the images.
# From the environment:
#   PRISM_TUNE_PEERS   where the peers' environments are (default: build/peers in this repository)
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  exit 0
fi
peers="${PRISM_TUNE_PEERS:-$root/build/peers}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
own="${PRISM_TUNE_VENV:-$root/.venv}/bin/python"
PYTHONPATH="$root:$root/tests" "$own" scripts/check_peers.py write "$work"

declare -A packages=([trl]="trl torchvision" [llamafactory]="llamafactory" [ms_swift]="ms-swift torchvision")
if [ $# -eq 0 ]; then set -- trl llamafactory ms_swift; fi
failed=()
for peer in "$@"; do
  if [ -z "${packages[$peer]:-}" ]; then echo "no such peer: $peer" >&2 && exit 2; fi
  if [ ! -e "$peers/$peer/.installed" ]; then
    "$own" -m venv "$peers/$peer"
    # shellcheck disable=SC2086
    "$peers/$peer/bin/pip" install -q ${packages[$peer]}
    touch "$peers/$peer/.installed"
  fi
  HF_HOME="$work/hf" MODELSCOPE_CACHE="$work/modelscope" HF_HUB_OFFLINE=1 \
    "$peers/$peer/bin/python" scripts/check_peers.py "$peer" "$work" || failed+=("$peer")
done
if [ ${#failed[@]} -gt 0 ]; then echo "refused by: ${failed[*]}" >&2 && exit 1; fi
