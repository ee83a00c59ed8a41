#!/usr/bin/env bash
# Everything that only a GPU can show, in one go: into one JSON file, and as tables.
#
#   bash benchmarks/gpu.sh --seconds 1800                   # LLaVA-1.5-7B and Qwen2.5-VL-7B shapes
#   bash benchmarks/gpu.sh --toy --work /tmp/toy            # does it run? any machine
#   bash benchmarks/gpu.sh --only "llava, packed" equality  # parts whose names have this
#
# Needs 80 GiB of GPU memory, 40 GB of disk in --work, and no network: the models are drawn. Parts
# that have a result in --out are skipped, so the same command goes on where it was stopped.
# PYTHON names the interpreter; PRISM_TUNE_PEAK_TFLOPS a device's dense bfloat16 peak that we do not
# know.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
[ -x "$python" ] || python=python3
export PYTHONPATH="$root:$root/benchmarks:$root/tests${PYTHONPATH:+:$PYTHONPATH}"
cd "$root"
exec "$python" -m gpu_parts.run "$@"
