#!/bin/sh
# Set-up if needed, then lint, format, spelling, types and all tests. Further arguments go to pytest.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
sh "$ROOT/scripts/setup.sh"
cd "$ROOT"
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m codespell_lib
.venv/bin/python -m mypy
# No test needs a hub; a test that reached for one would wait for it.
HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -q "$@"
