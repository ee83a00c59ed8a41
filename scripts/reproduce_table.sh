#!/usr/bin/env bash
# A table of the paper, or of the embedded default, from nothing: plan -> runs -> tables.
#
#   bash scripts/reproduce_table.sh TABLE [key=value ...] [--dry-run]
#
# TABLE: main | main_lora | ablation | visionflan | visionflan_lora | models | selectors | published |
# language | quickstart, the grids in configs/experiments/tables/
#
# For example
#   bash scripts/reproduce_table.sh quickstart --dry-run            what it takes, nothing else
#   SEEDS="0 1 2" bash scripts/reproduce_table.sh quickstart        on any machine, hours on two cores
#   SEEDS="0 1 2" sbatch --nodes=2 scripts/slurm/reproduce_table.sbatch main
#
# It sets up what it needs, then calls `prism-tune plan` and `prism-tune compare`. Repeat it at will,
# also after a kill: finished runs are skipped, the interrupted one goes on. A run that fails is left
# out of the tables and named (exit code 1), and the others go on. From the environment:
#   SEEDS    every row is run under each (default: 0)
#   ROWS     only rows called so, for example "prism* random*", to spread a table over several jobs
#   LAUNCH   local: one process | torchrun: one per GPU of this machine | slurm: inside a job, on all
#            its nodes (default: torchrun where there are several GPUs, else local)
#   NPROC    processes of torchrun (default: the number of GPUs)
#   TFLOPS   what a device computes, in 10^12 FLOPs a second, for the plan's hours
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$root/scripts/reproduce_table.sh"
}
table="" keys=() dry_run=false
for argument in "$@"; do
  case "$argument" in
    -h | --help) usage && exit 0 ;;
    --dry-run) dry_run=true ;;
    -*) usage >&2 && exit 2 ;;
    *=*) keys+=("$argument") ;;
    *)
      if [ -n "$table" ]; then
        echo "error: one table at a time, not $table and $argument" >&2
        usage >&2 && exit 2
      fi
      table="$argument"
      ;;
  esac
done
if [ -z "$table" ]; then usage >&2 && exit 2; fi

# shellcheck source=scripts/stage_environment.sh
. "$root/scripts/stage_environment.sh"
extras=quickstart
if [ "$table" = language ]; then extras=quickstart,eval; fi
bash scripts/setup.sh "$extras"

read -r -a seeds <<<"${SEEDS:-0}"
grid=("$table" "compare.seeds=[$(IFS=,; echo "${seeds[*]}")]" ${keys[@]+"${keys[@]}"})
grid+=(--rows "${ROWS:-*}")
"$venv/bin/python" -m prism_tune plan "${grid[@]}" ${TFLOPS:+--tflops "$TFLOPS"}
if [ "$dry_run" = true ]; then exit 0; fi
exec "$venv/bin/python" -m prism_tune compare "${grid[@]}"
