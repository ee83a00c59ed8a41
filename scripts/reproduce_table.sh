#!/usr/bin/env bash
# A table of the paper, or of the embedded default, from nothing: plan -> runs -> tables.
#
#   bash scripts/reproduce_table.sh TABLE [--dry-run]
#
# TABLE: main | main_lora | ablation | visionflan | visionflan_lora | models | language | quickstart
#
# For example
#   bash scripts/reproduce_table.sh quickstart --dry-run            what it takes, nothing else
#   SEEDS="0 1 2" bash scripts/reproduce_table.sh quickstart        on any machine, hours on two cores
#   SEEDS="0 1 2" sbatch --nodes=2 scripts/slurm/reproduce_table.sbatch main
#
# Repeat it at will, also after a kill: finished runs are skipped, the interrupted one goes on. A
# stage that fails is tried once more; then its run is given up, the others go on, and the end names
# it (exit code 1). From the environment:
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
table="" dry_run=false
for argument in "$@"; do
  case "$argument" in
    -h | --help) usage && exit 0 ;;
    --dry-run) dry_run=true ;;
    -*) usage >&2 && exit 2 ;;
    *) table="$argument" ;;
  esac
done
if [ -z "$table" ]; then usage >&2 && exit 2; fi

# shellcheck source=scripts/stage_environment.sh
. "$root/scripts/stage_environment.sh"
trap 'exit 130' INT TERM # a run that was interrupted has not failed: it is not tried again

# --- the launchers ------------------------------------------------------------------------------
alone() { # verb, argument ...
  if [ "$launcher" = slurm ]; then
    srun --nodes=1 --ntasks=1 "$venv/bin/python" -m prism_tune "$@"
  else
    "$venv/bin/python" -m prism_tune "$@"
  fi
}
together() { # verb, argument ...
  case "$launcher" in
    local) alone "$@" ;;
    torchrun)
      "$venv/bin/torchrun" --standalone "--nproc_per_node=$num_processes" -m prism_tune "$@"
      ;;
    slurm)
      srun --kill-on-bad-exit=1 "$venv/bin/torchrun" "--nnodes=$SLURM_NNODES" \
        "--nproc_per_node=${SLURM_GPUS_ON_NODE:-1}" "--rdzv_id=$SLURM_JOB_ID" --rdzv_backend=c10d \
        "--rdzv_endpoint=$head_node:$((20000 + SLURM_JOB_ID % 20000))" -m prism_tune "$@"
      ;;
  esac
}
choose_launcher() {
  num_processes="${NPROC:-$(count_gpus)}"
  launcher=local
  if [ "$num_processes" -gt 1 ]; then launcher=torchrun; fi
  launcher="${LAUNCH:-$launcher}"
  case "$launcher" in
    local | torchrun) ;;
    slurm)
      if [ -z "${SLURM_JOB_NODELIST:-}" ]; then
        echo "error: LAUNCH=slurm works inside a job; submit scripts/slurm/reproduce_table.sbatch" >&2
        exit 2
      fi
      read -r head_node <<<"$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
      ;;
    *) echo "error: LAUNCH=$launcher: expected local, torchrun or slurm" >&2 && exit 2 ;;
  esac
}

# --- the narration ------------------------------------------------------------------------------
say() { printf '\n=== %s\n' "$*"; }
timed() {
  local begin=$SECONDS code=0
  printf '    run:  %s\n' "$*"
  "$@" || code=$?
  printf '    took: %d s\n' $((SECONDS - begin))
  return "$code"
}
failed="" # run folders, one a line
has_failed() { grep -qxF -- "$1" <<<"$failed"; }

# A stage of a run; tried twice. A run that was given up is left alone.
do_stage() { # run folder, verb, config, override ...
  local run="$1"
  shift
  if has_failed "$run"; then return; fi
  say "$run: $1"
  if timed together "$@"; then return; fi
  echo "    failed; once more"
  if timed together "$@"; then return; fi
  failed="$failed$run"$'\n'
  echo "    failed twice: $run is given up, the others go on. Its log: $run/log.txt"
}

# A table of the runs that did not fail, printed and kept.
do_table() { # kind, run folder ...
  local kind="$1" folders=() run
  shift
  for run in "$@"; do
    if ! has_failed "$run"; then folders+=(--runs "$run"); fi
  done
  say "Table: $kind"
  if [ ${#folders[@]} -eq 0 ]; then echo "    no run of it has finished" && return; fi
  mkdir -p runs/tables
  echo "    run:  prism-tune tables $kind ${folders[*]}"
  if ! "$venv/bin/python" -m prism_tune tables "$kind" "${folders[@]}" >"runs/tables/$table-$kind.md"; then
    failed="${failed}table $kind"$'\n'
    return
  fi
  cat "runs/tables/$table-$kind.md"
  echo "    kept: runs/tables/$table-$kind.md"
}

# --- the job ------------------------------------------------------------------------------------
extras=quickstart
if [ "$table" = language ]; then extras=quickstart,eval; fi
bash scripts/setup.sh "$extras"
plan=("$venv/bin/python" -m prism_tune plan "$table" --seeds "${SEEDS:-0}" --rows "${ROWS:-*}")
"${plan[@]}" ${TFLOPS:+--tflops "$TFLOPS"}
steps="$("${plan[@]}" --steps)"
if [ "$dry_run" = true ]; then exit 0; fi
choose_launcher

while IFS=$'\t' read -r -a step <&3; do
  case "${step[0]}" in
    prepare) say "Prepare model and data" && timed alone prepare "${step[@]:1}" ;;
    audit) say "Audit" && timed alone audit "${step[@]:1}" ;;
    stage) do_stage "${step[@]:1}" ;;
    table) do_table "${step[@]:1}" ;;
  esac
done 3<<<"$steps"

if [ -n "$failed" ]; then
  printf '\nNot finished:\n%s' "$failed" >&2
  echo "The same command tries these again, and nothing else." >&2
  exit 1
fi
printf '\nDone: every run of the table has finished.\n'
