#!/bin/sh
# Check correctness, speed and memory on the device that is here: sh benchmarks/gpu.sh --help
# Takes PYTHON, else .venv, else python3. Nothing is fetched.
. "$(dirname -- "$0")/../scripts/line_endings.sh" #
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$here/../.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=python3
fi
command -v "$PYTHON" >/dev/null || {
    echo "error: no $PYTHON here; set PYTHON to one with torch and transformers" >&2
    exit 2
}
HF_HUB_OFFLINE=1
export HF_HUB_OFFLINE
exec "$PYTHON" "$here/gpu.py" "$@"
