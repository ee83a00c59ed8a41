#!/usr/bin/env bash
# The browser that the report's tests drive: Chromium out of the system's packages, unless there is
# one. Installs where it may (root, or sudo without a password); else says what to type.
set -euo pipefail

for name in chromium-headless-shell chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$name" >/dev/null; then exit 0; fi
done

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
if command -v apt-get >/dev/null && ${as_root[@]+"${as_root[@]}"} true 2>/dev/null; then
  echo "[browser] installing chromium (200 MB): the tests of the report drive a real browser"
  ${as_root[@]+"${as_root[@]}"} apt-get update -qq
  install() { ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$1" >/dev/null; }
  # The one without windows starts sooner; Debian has it, Ubuntu has not.
  install chromium-headless-shell 2>/dev/null || install chromium
else
  echo "[browser] no Chromium: the tests of the report will fail. apt-get install chromium (Debian," \
    "Ubuntu), or put one on PATH as chromium or google-chrome" >&2
  exit 1
fi
