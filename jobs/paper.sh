#!/usr/bin/env bash
# The published run (recipe vgs, docs/vgs.md) on a Ray cluster, one job for each stage: jobs/paper.sh [--section.field VALUE ...]
# It stops at the first stage that fails, with its exit code. Repeat it to continue: finished stages are skipped, and a job
# that still runs is followed. --dry-run prints the commands.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
case " $* " in
  *" --no-wait "*) echo "paper: --no-wait is not possible, because each stage reads the rows of the one before: leave it out" >&2; exit 2 ;;
esac
for stage in clean roll_in roll_out verify label train evaluate; do
  "$here/submit.sh" "$stage" vgs "$@"
done
