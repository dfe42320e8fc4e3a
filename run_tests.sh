#!/bin/sh
# Set up if needed, then run lint, format, spelling and type checks, and all tests. --fast skips the
# tests marked slow. All other arguments go to pytest, such as --order random (tests/conftest.py).
. "$(dirname -- "$0")/scripts/line_endings.sh" #
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ "${1:-}" = --fast ]; then
    shift
    set -- -m "not slow" "$@"
fi
sh "$ROOT/scripts/setup.sh"
cd "$ROOT"
# Without bytecode, each process that a test starts compiles torch again, which takes seconds.
unset PYTHONDONTWRITEBYTECODE
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m codespell_lib
# The types are checked while the tests run, and reported after them.
report=$(mktemp)
trap 'rm -f "$report"' EXIT
.venv/bin/python -m mypy >"$report" 2>&1 &
types=$!
failed=0
# No test needs a hub; a test that tried to reach one would wait for it.
HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -q "$@" || failed=$?
wait "$types" || failed=$?
cat "$report"
exit "$failed"
