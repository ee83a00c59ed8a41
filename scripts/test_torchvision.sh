#!/usr/bin/env bash
# The tests of what torchvision changes, in an environment of its own that has it, as users' have:
# transformers then takes torchvision's image processors wherever nobody chooses (and families with
# a video processor can be built whole).
#
#   bash scripts/test_torchvision.sh [pytest arguments in place of the default files]
#
# From the environment: as scripts/setup.sh; PRISM_TUNE_VENV names this environment
# (default: .venv-torchvision in this repository).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PRISM_TUNE_VENV="${PRISM_TUNE_VENV:-$root/.venv-torchvision}"
python="$PRISM_TUNE_VENV/bin/python"

# torchvision asks for the one torch it was compiled against, and pip brings both.
export PRISM_TUNE_TORCH="${PRISM_TUNE_TORCH:-torchvision}"
bash "$root/scripts/setup.sh" dev,eval
"$python" -c 'import num2words' 2>/dev/null || "$python" -m pip install -q num2words # SmolVLM's
"$python" - <<'PYTHON' || {
import torch
import torchvision
import transformers

transformers.AutoModelForImageTextToText  # noqa: B018 - fails where the two do not fit
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
PYTHON
  echo "torch and torchvision are of different builds (a CPU one and a CUDA one): pip's settings chose" >&2
  echo "them. Without those: rm -r $PRISM_TUNE_VENV; PIP_FIND_LINKS= PIP_CONFIG_FILE=/dev/null $0" >&2
  exit 1
}

cd "$root"
tests=(
  tests/models tests/data tests/selection/evidence tests/selection/test_select.py
  tests/training/test_train.py tests/training/test_presets.py tests/training/test_families.py
  tests/evaluation/test_evaluate.py tests/evaluation/test_families.py tests/test_end_to_end.py
  tests/families_end_to_end.py
)
[ $# -eq 0 ] || tests=("$@")
OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 "$python" -m pytest -n auto --maxprocesses 4 \
  --dist loadfile "${tests[@]}"
