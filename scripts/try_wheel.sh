#!/usr/bin/env bash
# Does a wheel work for somebody who has nothing else? Builds sdist and wheel, installs the wheel
# into a fresh environment, and runs the embedded default, shortened, from an empty folder.
#
#   bash scripts/try_wheel.sh [key=value ...]      for example training.hf.max_steps=-1 for all of it
#
# Five minutes on two cores, 6 GB of free disk (12 GB with a GPU: torch comes with CUDA), all of it
# removed at the end; sdist and wheel stay in dist/. The environment variables of scripts/setup.sh apply.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export PRISM_TUNE_VENV="$work/venv" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
unset PYTHONPATH

"${PRISM_TUNE_PYTHON:-python3}" -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet --disable-pip-version-check build
rm -rf "$root/build" "$root/dist"
"$work/build/bin/python" -m build --outdir "$root/dist" "$root" >"$work/build.log" ||
  { cat "$work/build.log" >&2 && exit 1; }
wheels=("$root"/dist/*.whl)
PRISM_TUNE_WHEEL="${wheels[0]}" bash "$root/scripts/setup.sh" quickstart

mkdir "$work/empty"
cd "$work/empty"
prism_tune="$work/venv/bin/prism-tune"
"$work/venv/bin/python" -c 'import prism_tune; print(prism_tune.__file__)'
"$prism_tune" doctor
"$prism_tune" run preset:quickstart compare=null evaluation.benchmarks=[shapes] training.hf.max_steps=4 \
  evaluation.data.shapes.limit=8 "$@"
"$prism_tune" plan main
