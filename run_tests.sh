#!/bin/sh
# Set up if needed, then run lint, format, spelling and type checks, and all tests. --fast skips the tests marked slow.
# All other arguments go to pytest, such as --order random (see tests/conftest.py).
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ "${1:-}" = --fast ]; then
    shift
    set -- -m "not slow" "$@"
fi
sh "$ROOT/scripts/setup.sh"
cd "$ROOT"
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m codespell_lib
.venv/bin/python -m mypy
# No test needs a hub; a test that tried to reach one would wait for it.
HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -q "$@"
