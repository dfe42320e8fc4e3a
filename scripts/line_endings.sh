# Each shell script sources this file first: an error if it was saved with Windows line endings. A
# "#" at the end of a command hides the carriage return of such a line.
files=$(grep -ls "$(printf '\r')" "$0" "$(dirname -- "$0")"/scripts/*.sh "$(dirname -- "$0")"/variables.sh) #
[ -z "$files" ] || printf '%s\n' "error: Windows line endings; remove them: sed -i 's/\\r//' $(echo $files)" >&2 #
[ -z "$files" ] || exit 2 #
