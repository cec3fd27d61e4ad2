# Sourced by Spark's own scripts before they start a JVM: the master, the workers, and every spark-submit.

# This JVM only writes the command line of the next one.
SPARK_LAUNCHER_OPTS="-XX:+UseSerialGC -XX:TieredStopAtLevel=1"

# Every JVM maps the archive of classes (archive-classes.sh) at the address it was made for, so that all share its pages;
# executors do so by spark-defaults.conf. A JVM takes it only if no folder with files stands before the jars, and Spark
# puts SPARK_CONF_DIR there: the jars come first instead.
archive=${CLASS_ARCHIVE:+ -XX:SharedArchiveFile=$CLASS_ARCHIVE -XX:+UnlockDiagnosticVMOptions -XX:ArchiveRelocationMode=0}
SPARK_SUBMIT_OPTS+=$archive
SPARK_DAEMON_JAVA_OPTS+=$archive
SPARK_DAEMON_CLASSPATH=$SPARK_HOME/jars/*
if [[ ${1-} == org.apache.spark.deploy.SparkSubmit && ${2-} != *-shell-main && ${2-} != run-example ]]; then
  set -- "$1" --conf "spark.driver.defaultExtraClassPath=$SPARK_HOME/jars/*" "${@:2}" # the arguments of spark-class
fi
