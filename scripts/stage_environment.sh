# Sourced by the scripts that run stages; `root` is the repository. Goes there, and sets `venv`.
# shellcheck shell=bash

venv="${PRISM_TUNE_VENV:-$root/.venv}"
case "$venv" in /*) ;; *) venv="$PWD/$venv" ;; esac
export PRISM_TUNE_VENV="$venv"
# Waiting threads that spin instead of sleeping slow a shared machine down several times.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
cd "$root"
