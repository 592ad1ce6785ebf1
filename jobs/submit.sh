#!/usr/bin/env bash
# Submits a command of this package to a Ray cluster: jobs/submit.sh --help
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$here/.venv/bin/python"
[ -x "$python" ] || python="$(command -v python)" || { echo "submit: python is not installed: run make setup" >&2; exit 2; }
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m pipelines.submit "$@"
