#!/usr/bin/env bash
# Set up everything prism_tune needs, once: a virtual environment with the package and its extras.
#
#   bash scripts/setup.sh [EXTRAS]        EXTRAS: quickstart (default) | eval | dev,eval | ...
#
# Safe to repeat: does nothing when current (well under a second), repairs a set-up that was killed.
# From the environment:
#   PRISM_TUNE_VENV    the virtual environment (default: .venv in this repository)
#   PRISM_TUNE_PYTHON  the Python to build it with (default: the newest suitable one on PATH)
#   PRISM_TUNE_TORCH   a pip requirement for torch, where you want a particular build of it: given
#                      once, it holds until another is;
#                      pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) apply as always, and
#                      without a GPU a torch among its find-links goes before that of an index
#   PRISM_TUNE_WHEEL   a wheel of prism_tune to install (default: this repository, editable)
set -euo pipefail

extras="${1:-quickstart}"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${PRISM_TUNE_VENV:-$root/.venv}"
python="$venv/bin/python"
stamp="$venv/.prism_tune_setup"   # what is installed: the last file a set-up writes
ours="$venv/.prism_tune_created"  # this script made the environment, so it may mend it

say() { printf '[setup] %s\n' "$*" >&2; }
fail() {
  printf '[setup] error: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '[setup]        %s\n' "$line" >&2; done
  exit 1
}

# Of the last set-up: a script that is called without PRISM_TUNE_TORCH, perhaps on a node without a
# network, takes the environment as it is.
recorded_torch() {
  [ -f "$stamp" ] || return 0
  local state before=" root $root torch "
  state="$(head -n 1 "$stamp")"
  case "$state" in *"$before"*) ;; *) return 0 ;; esac
  state="${state#*"$before"}"
  state="${state% wheel *}"
  [ "$state" = "as required" ] || printf '%s' "$state"
}
torch="${PRISM_TUNE_TORCH:-$(recorded_torch)}"

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; }

is_suitable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; }

# Prints the newest suitable Python, or explains what was found instead.
find_python() {
  local candidates=(python3.13 python3.12 python3.11 python3 python) name seen=""
  [ -z "${PRISM_TUNE_PYTHON:-}" ] || candidates=("$PRISM_TUNE_PYTHON")
  for name in "${candidates[@]}"; do
    command -v "$name" >/dev/null 2>&1 || continue
    if is_suitable "$name"; then
      command -v "$name"
      return
    fi
    seen="$seen $name ($("$name" --version 2>&1 | head -n 1));"
  done
  fail "prism_tune needs Python 3.11, 3.12 or 3.13." \
    "Found:${seen:- no Python at all (looked for ${candidates[*]})}" \
    "Install one, or name it: PRISM_TUNE_PYTHON=/path/to/python3.11 bash scripts/setup.sh"
}

# The virtual environment and what the embedded default downloads and builds.
check_disk() {
  local needed_gb=6 place="$venv" free_kb
  has_gpu && needed_gb=12 # the CUDA libraries that come with torch
  while [ ! -d "$place" ]; do place="$(dirname "$place")"; done
  free_kb="$(df -Pk "$place" | awk 'NR == 2 {print $4}')"
  [ "$free_kb" -ge $((needed_gb * 1024 * 1024)) ] && return
  fail "not enough disk: $((free_kb / 1024 / 1024)) GB free in $place, $needed_gb GB needed." \
    "Make room, or put the environment elsewhere: PRISM_TUNE_VENV=/big/disk/venv"
}

create_venv() {
  if [ -d "$venv" ] && [ -n "$(ls -A "$venv")" ] && [ ! -e "$venv/pyvenv.cfg" ] &&
    [ "$venv" != "$root/.venv" ]; then
    fail "$venv exists and is not a virtual environment; it is left as it is." \
      "Name another folder: PRISM_TUNE_VENV=/path/to/venv"
  fi
  local builder
  builder="$(find_python)"
  "$builder" -c 'import venv, ensurepip' 2>/dev/null || fail \
    "$builder has no venv module." \
    "On Debian and Ubuntu: apt-get install $(basename "$builder")-venv"
  say "creating $venv with $("$builder" --version)"
  "$builder" -m venv --clear "$venv"
  touch "$ours"
}

# A killed pip leaves a package that it takes for installed; INSTALLER is the last file it writes.
drop_half_installed() {
  [ -e "$ours" ] || return 0
  local site package
  site="$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  for package in "$site"/*.dist-info; do
    if [ -d "$package" ] && [ ! -e "$package/INSTALLER" ]; then
      say "$(basename "$package") was not completely installed: installing it again"
      rm -rf "$package"
    fi
  done
}

has_torch() { "$python" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))'; }

# What pip's settings lay out as files (find-links) was chosen for this machine; the newest release
# of an index, which pip would prefer, comes with CUDA's libraries.
install_laid_out_torch() {
  "$python" -m pip install --quiet --no-compile --disable-pip-version-check --no-index --no-deps torch \
    >/dev/null 2>&1
}

install_package() {
  if ! has_gpu && [ -z "$torch" ] && ! has_torch && ! install_laid_out_torch; then
    say "no NVIDIA GPU here. Where the package index offers no CPU build of torch, pip brings the"
    say "CUDA one (several GB, and it runs on a CPU just as well); PRISM_TUNE_TORCH picks a build."
  fi
  local package=(-e "$root[$extras]")
  [ -z "${PRISM_TUNE_WHEEL:-}" ] || package=("$PRISM_TUNE_WHEEL[$extras]")
  say "installing prism_tune[$extras]: about two minutes and 2 GB on a CPU machine"
  "$python" -m pip install --quiet --no-compile --progress-bar=on --disable-pip-version-check \
    ${torch:+"$torch"} "${package[@]}" >&2 ||
    fail "the installation did not finish; pip says why above." "The next run continues it."
}

# pip would compile everything on one core, half of the whole time. What cannot be compiled (templates
# that are called .py) pip passes over, too.
compile_packages() {
  local site
  site="$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  "$python" -m compileall -q -j 0 -x '/tests?/' "$site" >/dev/null 2>&1 || true
}

# Everything the installed state depends on, but the extras.
describe_state() {
  echo "setup.py $(cksum <"$root/setup.py") pyproject.toml $(cksum <"$root/pyproject.toml")" \
    "root $root torch ${torch:-as required} wheel ${PRISM_TUNE_WHEEL:-none}"
}

# The stamp is the state, then the extras installed under it, one a line.
installed_extras() {
  [ -x "$python" ] && [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$(describe_state)" ] || return 0
  tail -n +2 "$stamp"
}

is_current() {
  local installed extra
  installed="$(installed_extras)"
  case "$installed" in *dev*) installed="$installed"$'\n'quickstart ;; esac # as in setup.py
  for extra in ${extras//,/ }; do
    grep -qxF "$extra" <<<"$installed" || return 1
  done
}

write_stamp() {
  local all
  all="$({ installed_extras && tr ',' '\n' <<<"$extras"; } | sort -u)"
  printf '%s\n' "$(describe_state)" "$all" >"$stamp.partial"
  mv "$stamp.partial" "$stamp"
}

if is_current; then exit 0; fi
check_disk
if ! { [ -x "$python" ] && is_suitable "$python" && "$python" -c 'import pip' 2>/dev/null; }; then
  create_venv
fi
drop_half_installed
install_package
compile_packages
write_stamp
say "ready: $venv"
