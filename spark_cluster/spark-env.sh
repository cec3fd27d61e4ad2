# Sourced by Spark's own scripts before they start a JVM: the master, the workers, and every spark-submit.

# This JVM only writes the command line of the next one.
export SPARK_LAUNCHER_OPTS="-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
