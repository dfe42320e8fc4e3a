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
whole=no
if [ "${1:-}" = --fast ]; then
    shift
    set -- -m "not slow" "$@"
elif [ $# = 0 ]; then
    whole=yes
    set -- --ignore tests/cluster # it runs next to the others
fi
sh scripts/setup.sh
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m codespell_lib
# The types are checked while the tests run, and so are plans on a Slurm, which mostly wait. Both are
# reported after the tests.
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
.venv/bin/python -m mypy >"$reports/types" 2>&1 &
types=$!
cluster=
if [ "$whole" = yes ]; then
    .venv/bin/python -m pytest -q -rs tests/cluster >"$reports/cluster" 2>&1 &
    cluster=$!
fi
failed=0
.venv/bin/python -m pytest -q "$@" || failed=$?
wait "$types" || failed=$?
[ -z "$cluster" ] || wait "$cluster" || failed=$?
cat "$reports"/*
exit "$failed"
