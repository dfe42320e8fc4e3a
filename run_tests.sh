#!/bin/sh
# Set up if needed, then run lint, format, spelling and type checks, and all tests. --fast skips the
# tests marked slow. All other arguments go to pytest, such as --order random (tests/conftest.py).
#
#   sh run_tests.sh --transformers5   only the tests of training, tickets and tables, with the newest
#                                     transformers 5, in .venv-transformers5
. "$(dirname -- "$0")/scripts/line_endings.sh" #
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$ROOT"
# Without bytecode, each process that a test starts compiles torch again, which takes seconds.
unset PYTHONDONTWRITEBYTECODE
# No test needs a hub; a test that tried to reach one would wait for it.
export HF_HUB_OFFLINE=1
if [ "${1:-}" = --transformers5 ]; then
    shift
    sh scripts/setup.sh --transformers5
    # TextAttack requires transformers 4, so tests that need it are skipped (tests/conftest.py).
    exec .venv-transformers5/bin/python -m pytest -q tests/test_golden.py tests/hub tests/masking \
        tests/training tests/utils tests/scripts tests/reporting tests/experiments "$@"
fi
# Tests that run in processes of their own next to the others, if all are wanted: those of a cluster,
# which mostly wait, and folders that take as long as the rest.
cluster='' half=''
if [ "$*" = '' ] || [ "$*" = --fast ]; then
    half='tests/scripts tests/benchmarks tests/hub tests/utils'
    if [ "$*" = --fast ]; then
        half="$half tests/docs tests/experiments"
    else
        cluster=tests/cluster
    fi
fi
if [ "${1:-}" = --fast ]; then
    shift
    set -- -m "not slow" "$@"
fi
sh scripts/setup.sh
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m codespell_lib
# What does not run in the foreground is reported at the end.
reports=$(mktemp -d)
processes=''
trap 'kill $processes 2>/dev/null || :; rm -rf "$reports"' EXIT
trap 'exit 130' INT TERM
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that wait leave the core to the others

# start NAME COMMAND...: run a command in the background.
start() {
    report=$reports/$1
    shift
    "$@" >"$report" 2>&1 &
    processes="$processes $!"
}

start types .venv/bin/python -m mypy
# shellcheck disable=SC2086 # several folders
for folders in "$cluster" "$half"; do
    [ -z "$folders" ] || start "tests-${folders##*/}" .venv/bin/python -m pytest -q -rs "$@" $folders
done
for folder in $cluster $half; do
    set -- "$@" --ignore "$folder"
done
failed=0
.venv/bin/python -m pytest -q "$@" || failed=$?
for process in $processes; do
    wait "$process" || failed=$?
done
processes=''
cat "$reports"/*
exit "$failed"
