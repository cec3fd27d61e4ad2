#!/usr/bin/env bash
# Makes the archive of classes, $CLASS_ARCHIVE: what Spark loads at a start, parsed and verified, for the JVMs of drivers,
# executors, master and workers to map instead of doing that again. If it cannot be made, an empty file takes its place,
# and all start as slowly as without.
set -euo pipefail
cd "$(dirname "$0")"
log=$CLASS_ARCHIVE.log
mkdir -p "${CLASS_ARCHIVE%/*}"
rm -f "$CLASS_ARCHIVE" "$CLASS_ARCHIVE.new"
if ! CLASS_ARCHIVE='' timeout --foreground "${ARCHIVE_TIMEOUT_SECONDS:-600}" "$SPARK_HOME/bin/spark-submit" --master 'local[2]' \
  --conf "spark.driver.defaultJavaOptions=-XX:ArchiveClassesAtExit=$CLASS_ARCHIVE.new" --conf spark.ui.port=0 \
  archive_classes.py </dev/null >"$log" 2>&1 || [[ ! -s $CLASS_ARCHIVE.new ]]; then
  { tail -n 5 "$log"; echo "no archive of Spark's classes (see $log): jobs work, but take longer to start"; } >&2
  : >"$CLASS_ARCHIVE.new"
fi
mv -f "$CLASS_ARCHIVE.new" "$CLASS_ARCHIVE"
