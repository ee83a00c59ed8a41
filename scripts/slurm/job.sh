# Sourced by the jobs in this folder. `run_until_time_is_up COMMAND ...` passes on that the job has to
# end: the command saves what it has done (training.grace_seconds) and exits with 143. Where the time
# limit is the reason (SLURM sends USR1 to this shell, see --signal), the job is queued again and goes
# on where it stopped; after a preemption SLURM does that itself (--requeue).
# shellcheck shell=bash

# Threads of a process: the CPUs of its GPU.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_GPU:-8}}"
# srun does not inherit these by itself.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-$((${SLURM_CPUS_PER_GPU:-8} * ${SLURM_GPUS_ON_NODE:-1}))}"

run_until_time_is_up() {
  local command code asked=0 before=-1 is_time_up=false begun=$SECONDS
  "$@" &
  command=$!
  trap 'asked=$((asked + 1)); is_time_up=true; kill -TERM "$command" 2>/dev/null || true' USR1
  trap 'asked=$((asked + 1)); kill -TERM "$command" 2>/dev/null || true' TERM INT
  until [ "$asked" -eq "$before" ]; do # a signal ends `wait`, not the command; its code is kept
    before=$asked code=0
    wait "$command" || code=$?
  done
  if [ "$is_time_up" = true ] && [ "$code" -eq 143 ]; then
    if [ $((SECONDS - begun)) -lt 60 ]; then # it would be queued for ever, and do nothing
      echo "error: asked to end as soon as it began: --time has to be longer than --signal leaves to save" >&2
      return "$code"
    fi
    echo "the time limit is near: job $SLURM_JOB_ID is queued again" >&2
    scontrol requeue "$SLURM_JOB_ID" || return "$code"
  fi
  return "$code"
}
