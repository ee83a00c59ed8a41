#!/usr/bin/env bash
# What the image runs: `prism-tune VERB ...` as it is; anything else is the main job's config and keys.
set -euo pipefail
if [[ "${1:-}" == prism-tune ]]; then
  exec "$@"
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/select_and_finetune.sh" "$@"
