#!/bin/sh
# Reproduce a table or figure of the paper: print a plan, run what is missing, write the table.
#
#   sh reproduce.sh table1 --scale mini                     MiniLM and built-in data; a CPU is enough
#   sh reproduce.sh table1 --scale paper --tasks sst2 --seeds 1 2 3
#   sh reproduce.sh table3 --scale mini --tasks sst2 --data folder --dry_run
#
# Targets: table1 to table4, figure1 to figure5, study (docs/study.md). Flags: sh reproduce.sh --help
. "$(dirname -- "$0")/scripts/line_endings.sh" #
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$ROOT/scripts/variables.sh"
refuse_carriage_returns PYTHON
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$ROOT/.venv/bin/python
    [ -x "$PYTHON" ] || sh "$ROOT/scripts/setup.sh"
elif ! command -v "$PYTHON" >/dev/null; then
    fail "PYTHON=$PYTHON is not a program"
fi
export PYTHON
exec "$PYTHON" "$ROOT/reproduce.py" "$@"
