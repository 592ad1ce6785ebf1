#!/usr/bin/env bash
# Submits `python -m pipelines.STAGE RECIPE ...` to a running Ray cluster (ray job submit).
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: jobs/submit.sh STAGE RECIPE [--section.field VALUE ...]

  STAGE    clean, roll_in, roll_out, verify, label, train, evaluate, serve, or run for all of them
  RECIPE   sandbox, vgs, ... (python -m pipelines.STAGE --help lists them)

environment:
  RAY_API_SERVER_ADDRESS or RAY_ADDRESS   job server of the cluster (default: http://127.0.0.1:8265)
  VGS_ROOT     folder of all runs, the same path on every node, or a URL; becomes --root (default: runs/ in this checkout)
  VGS_PYTHON   Python on the cluster (default: python)
  RAY_AUTH_TOKEN_PATH   token of the cluster, if it requires one (default: ~/.ray/auth_token)
  VGS_WAIT     0: return after submission instead of following the output

examples:
  ray start --head --include-dashboard=true && jobs/submit.sh clean sandbox
  RAY_ADDRESS=http://head:8265 VGS_ROOT=/mnt/shared/runs jobs/submit.sh roll_out vgs --roll-out.cuts 2
USAGE
}

stop() { echo "submit: $1" >&2; exit 2; }

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") usage >&2; exit 2 ;;
esac
[ $# -ge 2 ] || { usage >&2; stop "stage $1 needs a recipe, for example: jobs/submit.sh $1 sandbox"; }

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
stage="$1" recipe="$2"
shift 2
if [[ ! "$stage" =~ ^[a-z_]+$ ]] || ! grep -qs '^    cli(' "$here/pipelines/$stage.py"; then
  known="$(cd "$here/pipelines" && grep -l '^    cli(' ./*.py | sed 's|^\./||; s|\.py$||' | paste -sd' ')"
  stop "stage '$stage' does not exist; it must be one of: $known"
fi

ray="$here/.venv/bin/ray"
[ -x "$ray" ] || ray="$(command -v ray)" || stop "the command ray is not installed: run make setup, or activate an environment with Ray"

address="${RAY_API_SERVER_ADDRESS:-${RAY_ADDRESS:-http://127.0.0.1:8265}}"
case "$address" in
  http://* | https://*) ;;
  *) stop "the address '$address' is not an HTTP address of a job server: set RAY_API_SERVER_ADDRESS, for example to http://127.0.0.1:8265" ;;
esac
status="$(curl -s -o /dev/null -w '%{http_code}' --max-time 10 "$address/api/version" || true)"
case "$status" in
  000) stop "no job server responds at $address: start a cluster (ray start --head --include-dashboard=true) or set RAY_API_SERVER_ADDRESS" ;;
  # Ray's client only sends its token (RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token) in this mode.
  401 | 403) export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}" ;;
esac

# A job runs in a temporary copy of this checkout, so its tables need an absolute path.
root=(--root "${VGS_ROOT:-$here/runs}")
for argument in "$@"; do
  case "$argument" in --root | --root=*) root=() ;; esac
done
wait=()
[ "${VGS_WAIT:-1}" = 0 ] && wait=(--no-wait)

cd "$here"
# The address in the environment would override the option. jobs/runtime_env.yaml replaces Ray's default excludes; the
# empty variable suppresses Ray's message about them.
exec env -u RAY_ADDRESS -u RAY_API_SERVER_ADDRESS RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES= \
  "$ray" --logging-level warning job submit \
  --address "$address" --working-dir . --runtime-env jobs/runtime_env.yaml ${wait[@]+"${wait[@]}"} \
  -- "${VGS_PYTHON:-python}" -m "pipelines.$stage" "$recipe" ${root[@]+"${root[@]}"} "$@"
