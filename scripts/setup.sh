#!/bin/sh
# Create .venv next to the README and install requirements.txt into it, once per content of that
# file. PYTHON names the Python 3.11 or 3.12 to use (default: the first one on PATH).
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
stamp="$ROOT/.venv/requirements.installed"
if [ -x "$ROOT/.venv/bin/python" ] && cmp -s "$ROOT/requirements.txt" "$stamp"; then
    exit 0
fi

fail() {
    echo "error: $1" >&2
    exit 2
}

fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
        >/dev/null 2>&1
}
# choose CANDIDATE...: the first one that fits.
choose() {
    for candidate in "$@"; do
        if fits "$candidate"; then
            printf '%s' "$candidate"
            return
        fi
    done
}

if [ -n "${PYTHON:-}" ]; then
    fits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or 3.12 with venv; name another one"
else
    PYTHON=$(choose python3.11 python3 python3.12 python /usr/bin/python3.11)
    [ -n "$PYTHON" ] ||
        fail "found no Python 3.11 or 3.12 with venv; install one and set PYTHON=/path/to/python"
fi
if [ ! -x "$ROOT/.venv/bin/python" ]; then
    "$PYTHON" -m venv "$ROOT/.venv"
fi
echo "installing the requirements into $ROOT/.venv (a few minutes, once)"
# --no-compile: byte code is made at first use, for the modules that are used.
if ! "$ROOT/.venv/bin/python" -m pip install -qq --disable-pip-version-check --no-compile \
    -r "$ROOT/requirements.txt"; then
    fail "the installation failed (no network?); run the same command again"
fi
cp "$ROOT/requirements.txt" "$stamp"
