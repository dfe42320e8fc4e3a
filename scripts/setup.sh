#!/bin/sh
# Create .venv next to the README and install the requirements into it, once per content of the
# requirements files. PYTHON names the Python 3.11, 3.12 or 3.13 to use (default: the newest that
# fits on PATH).
#
#   sh scripts/setup.sh                   .venv: everything
#   sh scripts/setup.sh --transformers5   .venv-transformers5: the training half, on transformers 5
#
# On Linux x86_64 .venv gets the packages of requirements.lock, checked by hash. Elsewhere indirect
# dependencies are not pinned.
. "$(dirname -- "$0")/line_endings.sh" #
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/scripts/variables.sh"
refuse_carriage_returns PYTHON
case ${1:-} in
    '') venv=$ROOT/.venv ;;
    --transformers5) venv=$ROOT/.venv-transformers5 ;;
    *) fail "unknown argument '$1'; known is --transformers5" ;;
esac
stamp=$venv/requirements.installed
wanted() {
    if [ "$venv" = "$ROOT/.venv" ]; then
        cat "$ROOT/requirements.txt" "$ROOT/requirements-train.txt" \
            "$ROOT/requirements-export.txt" "$ROOT/requirements.lock"
    else
        sed 's/^transformers==.*/transformers>=5,<6/' "$ROOT/requirements-train.txt"
        cat "$ROOT/requirements-export.txt"
        grep -E '^(jinja2|matplotlib|pytest|rich)==' "$ROOT/requirements.txt"
    fi
}
if [ -x "$venv/bin/python" ] && wanted | cmp -s - "$stamp"; then
    exit 0
fi

# fits PYTHON: a version that all requirements have packages for. On 3.13 one must be compiled.
fits() {
    "$1" -c '
import os, shutil, sys, sysconfig, venv, ensurepip
header = os.path.join(sysconfig.get_path("include"), "Python.h")
compiles = shutil.which("cc") and os.path.exists(header)
sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13 if compiles else 12)))' >/dev/null 2>&1
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

what="Python 3.11, 3.12 or 3.13 with venv (3.13 needs a C compiler and Python.h)"
if [ -n "${PYTHON:-}" ]; then
    fits "$PYTHON" || fail "PYTHON=$PYTHON is not a $what; name another one"
else
    PYTHON=$(choose python3.13 python3.12 python3.11 python3 python /usr/bin/python3.11)
    [ -n "$PYTHON" ] || fail "found no $what; install one and set PYTHON=/path/to/python"
fi
if [ ! -x "$venv/bin/python" ]; then
    "$PYTHON" -m venv "$venv"
fi

# --no-compile: Python compiles a module when it is first imported.
install() {
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-compile "$@" ||
        fail "the installation failed (no network?); run the same command again"
}
echo "installing the requirements into $venv (a few minutes, once)"
if [ "$venv" != "$ROOT/.venv" ]; then
    wanted >"$venv/requirements.txt"
    install -r "$venv/requirements.txt"
else
    [ "$(uname -sm)" != "Linux x86_64" ] ||
        install --require-hashes --no-deps -r "$ROOT/requirements.lock"
    # After the lock this installs torch, in the build that suits the machine, and CUDA libraries.
    install -r "$ROOT/requirements.txt"
fi
wanted >"$stamp"
