#!/usr/bin/env bash
# The main job, told step by step: audit -> select -> tune -> evaluate -> table -> report.
#
#   bash scripts/select_and_finetune.sh [CONFIG] [key=value ...]
#
# For example
#   bash scripts/select_and_finetune.sh                          the embedded default
#   bash scripts/select_and_finetune.sh compare_random=true      ... and a Random subset beside it
#   bash scripts/select_and_finetune.sh my.yaml selection.budget=0.2
#
# It sets up what it needs. Repeat it at will, also after a kill: finished stages are skipped, the
# interrupted one goes on. One process per GPU (NPROC=n sets another number). Paths inside a config
# are relative to the repository. Exit codes: 0 done, 1 a stage failed, 2 usage or config.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
config="$root/configs/experiments/quickstart.yaml"
case "${1:-}" in
  -h | --help)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  "" | *=*) ;; # no CONFIG: the embedded default
  *)
    config="$1"
    shift
    # A relative path is the caller's, or else the repository's.
    if [ -f "$config" ]; then config="$(cd "$(dirname "$config")" && pwd)/$(basename "$config")"; fi
    ;;
esac
overrides=("$@")

# shellcheck source=scripts/stage_environment.sh
. "$root/scripts/stage_environment.sh"
config="${config#"$root"/}"

# --- the narration ------------------------------------------------------------------------------
num_steps=0
step() { # title, why, cost
  num_steps=$((num_steps + 1))
  printf '\n=== %d. %s\n    why:  %s\n    cost: %s\n' "$num_steps" "$1" "$2" "$3"
}
run() {
  local begin=$SECONDS
  printf '    run:  %s\n' "$*"
  "$@"
  printf '    took: %d s\n' $((SECONDS - begin))
}
say_how_it_ended() {
  local code=$?
  [ "$code" -eq 0 ] || printf '\nStep %d did not finish (exit code %d); the reason stands above. %s\n' \
    "$num_steps" "$code" "The same command goes on from here." >&2
}
trap say_how_it_ended EXIT

# --- the launchers ------------------------------------------------------------------------------
# A verb that uses the accelerators, on all of them; then the overrides of one row of the table.
launch() { # verb, override ...
  local verb="$1" launcher=("$venv/bin/python" -m prism_tune)
  shift
  if [ "$num_processes" -gt 1 ]; then
    launcher=("$venv/bin/torchrun" --standalone "--nproc_per_node=$num_processes" -m prism_tune)
  fi
  run "${launcher[@]}" "$verb" "$config" ${overrides[@]+"${overrides[@]}"} "$@"
}

# One row of the table: select, tune, evaluate.
tune_and_evaluate() { # what, why selected so, cost of selecting, override ...
  local what="$1" why="$2" cost="$3"
  shift 3
  if [ "$records" = subset ]; then
    step "Select: $what" "$why" "$cost"
    launch select "$@"
  fi
  step "Tune: $what" "visual instruction tuning on these records" \
    "the largest share; grows with the number of records"
  launch train "$@"
  step "Evaluate: $what" "answers every benchmark question, then scores them by the official rules" \
    "minutes per benchmark: one generated answer per question"
  launch evaluate "$@"
}

# --- the job ------------------------------------------------------------------------------------
step "Set up" "a Python environment with prism_tune in it" \
  "about two minutes and 2 GB on a CPU machine; nothing when it is there"
run bash scripts/setup.sh quickstart
values="$("$venv/bin/python" -m prism_tune show "$config" ${overrides[@]+"${overrides[@]}"} --key \
  name,output_dir,compare_random,data.prepare,selection.scorer,training.records,evaluation.benchmarks)"
{
  read -r name && read -r runs && read -r compare_random && read -r data_to_prepare
  read -r scorer && read -r records && read -r benchmarks
} <<<"$values"
case "$benchmarks" in
  *mmlu* | *hellaswag* | *gsm8k*) run bash scripts/setup.sh quickstart,eval ;; # language benchmarks
esac
num_processes="${NPROC:-$(count_gpus)}"

if [ "$data_to_prepare" != null ]; then
  step "Prepare" "fetches and verifies the model and the data that the config names" \
    "a download once, then a minute of assembling; nothing when it is there"
  run "$venv/bin/python" -m prism_tune prepare "$config" ${overrides[@]+"${overrides[@]}"}
fi

step "Audit" "every record and image is looked at before a device is paid for" \
  "minutes per 100,000 images; nothing when neither has changed"
run "$venv/bin/python" -m prism_tune audit "$config" ${overrides[@]+"${overrides[@]}"} "name=$name"

step "Evaluate: untuned" "what the model can do before tuning, the floor of the table" \
  "minutes per benchmark: one generated answer per question"
launch evaluate "name=$name-untuned" training.tuning=none
rows=(--runs "$runs/$name-untuned")
beside=(--compare "$runs/$name-untuned")

if [ "$compare_random" = true ]; then
  tune_and_evaluate "Random subset" "as many records drawn at random: what a selector has to beat" \
    "seconds: no model" "name=$name-random" selection.scorer=random selection.options=null
  rows+=(--runs "$runs/$name-random" --baseline "$name-random")
  beside+=(--compare "$runs/$name-random")
fi

tune_and_evaluate "$name" "the records that the scorer '$scorer' keeps" \
  "seconds to an hour: a shallow forward pass per unique image" "name=$name"
rows+=(--runs "$runs/$name")

step "Table" "the runs side by side, with what selecting and tuning cost" "seconds"
run "$venv/bin/python" -m prism_tune tables main "${rows[@]}"

step "Report" "a page to look at: what was kept, what was dropped, and why" \
  "seconds; up to two minutes for a pool of 665,000 records"
run "$venv/bin/python" -m prism_tune report "$runs/$name" "${beside[@]}"
printf '\nReport:     %s\nRun folder: %s\n' "$runs/$name/report/index.html" "$runs/$name"
