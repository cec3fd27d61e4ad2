#!/usr/bin/env bash
# check-jars.sh FOLDER LIST: the jars in a folder are those of a list of SHA-256 sums, no more and no others.
set -euo pipefail
list=$(realpath "$2")
cd "$1"
if ! found=$(sha256sum -- *.jar | LC_ALL=C sort -k 2 | diff - <(LC_ALL=C sort -k 2 "$list")); then
  echo "the jars from Maven are not those of ${2##*/} (<: came, >: expected):" >&2
  echo "$found" >&2
  echo "If you have changed a version: docs/how-to/update-versions.md has the command that makes the list anew." >&2
  exit 1
fi
