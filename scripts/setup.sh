#!/bin/sh
# Create .venv next to the README and install the requirements into it, once per content of the
# requirements files. PYTHON names the Python 3.11 or 3.12 to use (default: the first one on PATH).
#
# Python 3.11 on Linux x86_64 installs requirements.lock, whose packages are checked by hash. Every
# other Python installs requirements.txt, whose indirect dependencies are not pinned.
. "$(dirname -- "$0")/line_endings.sh" #
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/scripts/variables.sh"
refuse_carriage_returns PYTHON
venv_python="$ROOT/.venv/bin/python"
stamp="$ROOT/.venv/requirements.installed"
wanted() {
    cat "$ROOT/requirements.txt" "$ROOT/requirements-train.txt" "$ROOT/requirements.lock"
}
if [ -x "$venv_python" ] && wanted | cmp -s - "$stamp"; then
    exit 0
fi

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
if [ ! -x "$venv_python" ]; then
    "$PYTHON" -m venv "$ROOT/.venv"
fi

# --no-compile: Python compiles a module when it is first imported.
install() {
    "$venv_python" -m pip install -qq --disable-pip-version-check --no-compile "$@" ||
        fail "the installation failed (no network?); run the same command again"
}
echo "installing the requirements into $ROOT/.venv (a few minutes, once)"
version=$("$venv_python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$version $(uname -sm)" = "3.11 Linux x86_64" ]; then
    install --require-hashes --no-deps -r "$ROOT/requirements.lock"
fi
# After the lock this installs torch, in the build that suits the machine, and its CUDA libraries.
install -r "$ROOT/requirements.txt"
wanted >"$stamp"
