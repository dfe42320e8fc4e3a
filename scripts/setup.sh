#!/bin/sh
# Makes .venv beside the README and installs requirements.txt into it, once per content of that
# file. Needs Python 3.11 or 3.12; PYTHON=/path/to/python chooses one.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
stamp="$ROOT/.venv/requirements.installed"
if [ -x "$ROOT/.venv/bin/python" ] && cmp -s "$ROOT/requirements.txt" "$stamp"; then
    exit 0
fi

fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
        >/dev/null 2>&1
}
chosen=
for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.12 python /usr/bin/python3.11; do
    if fits "$candidate"; then
        chosen=$candidate
        break
    fi
done
if [ -z "$chosen" ]; then
    echo "error: no Python 3.11 or 3.12 with venv found; install one and name it: PYTHON=/path/to/python" >&2
    exit 2
fi
if [ ! -x "$ROOT/.venv/bin/python" ]; then
    "$chosen" -m venv "$ROOT/.venv"
fi
echo "installing the requirements into $ROOT/.venv (a few minutes, once)"
# --no-compile: byte code is made at first use, for the modules that are used.
if ! "$ROOT/.venv/bin/python" -m pip install -qq --disable-pip-version-check --no-compile \
    -r "$ROOT/requirements.txt"; then
    echo "error: the installation failed (no network?); the same command tries again" >&2
    exit 2
fi
cp "$ROOT/requirements.txt" "$stamp"
