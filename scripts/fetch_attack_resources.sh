#!/bin/sh
# Fetch the files that attack recipes need into the cache folder, where the attacks find them.
#
#   sh scripts/fetch_attack_resources.sh                         for all recipes
#   sh scripts/fetch_attack_resources.sh textfooler bertattack   for these
#
# The same command resumes an interrupted download. docs/attacks.md describes the files.
# evaluation/resource_table.py has sizes, checksums and addresses.
. "$(dirname -- "$0")/line_endings.sh" #
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/scripts/variables.sh"
find_python
exec "$PYTHON" "$ROOT/scripts/fetch_attack_resources.py" "$@"
