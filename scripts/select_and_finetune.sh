#!/usr/bin/env bash
# The main job, told step by step: audit -> select -> tune -> evaluate -> table -> report.
# With no CONFIG: the embedded default, the whole pool beside Random, PRISM and a selector of ours,
# some minutes on two cores. A config of your own is one row, unless it has a `compare` section.
#
#   bash scripts/select_and_finetune.sh [CONFIG] [key=value ...]
#
# For example
#   bash scripts/select_and_finetune.sh                          the embedded default
#   bash scripts/select_and_finetune.sh compare.seeds=[0,1,2]    ... under three seeds
#   bash scripts/select_and_finetune.sh my.yaml selection.budget=0.2
#   bash scripts/select_and_finetune.sh my.yaml compare_random=true      ... and Random beside it
#
# It sets up what it needs, then calls `prism-tune run`. Repeat it at will, also after a kill:
# finished stages are skipped, the interrupted one goes on. One process per GPU (NPROC=n sets another
# number, LAUNCH=local|torchrun|slurm another launcher). Paths inside a config are relative to the
# repository. Exit codes: 0 done, 1 a stage failed, 2 usage or config.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
config="$root/configs/experiments/quickstart.yaml"
if [ -f "${1:-}" ]; then # also one with a `=` in its path; a relative path is the caller's
  config="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
  shift
else
  case "${1:-}" in
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    "" | *=*) ;; # no CONFIG: the embedded default
    *)           # the repository's
      config="$1"
      shift
      ;;
  esac
fi

# shellcheck source=scripts/stage_environment.sh
. "$root/scripts/stage_environment.sh"
config="${config#"$root"/}"

printf '=== Set up\n    why:  a Python environment with prism_tune in it\n'
printf '    cost: about two minutes and 2 GB on a CPU machine; nothing when it is there\n'
bash scripts/setup.sh quickstart
benchmarks="$("$venv/bin/python" -m prism_tune show "$config" "$@" --key evaluation.benchmarks)"
case "$benchmarks" in
  *mmlu* | *hellaswag* | *gsm8k*) bash scripts/setup.sh quickstart,eval ;; # language benchmarks
esac

exec "$venv/bin/python" -m prism_tune run "$config" "$@"
