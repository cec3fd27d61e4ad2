# How the Makefile reaches a stack without Docker, and what it is installed from.

ENV := source deploy/local/env.sh

KAFKA_TOPICS = $(ENV); kafka-topics --bootstrap-server $$KAFKA_BOOTSTRAP_SERVERS
DOCTOR = $(ENV); $(if $(wildcard $(PACKAGES)),python,python3) -m fedstream.stack.doctor
IN_STACK_PYTHON = $(ENV); python
FOLLOW_SQUARES = tail -n 0 -F $(RUN_DIR)/logs/squares.log 2>/dev/null
RUN_SUM = $(ENV); spark_cluster/start-job.sh sum $(ARGS)
SUBMIT = $(ENV); spark-submit --conf spark.eventLog.enabled=true $(OPTS) $(APP) $(ARGS)

KAFKA_JARS := .venv/share/kafka
SPARK_JARS := .venv/share/spark-connector
APP_SUM := java-sum/target/app-sum-1.0-SNAPSHOT.jar
# COPY_JARS: those of a pom.xml, if they are the files that jars.sha256 beside it names.
COPY_JARS = bash -c '$(MVN) -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$@.new && deploy/check-jars.sh $@.new $(<D)/jars.sha256 && rm -rf $@ && mv $@.new $@'

runner-setup: $(PACKAGES) $(KAFKA_JARS) $(SPARK_JARS) $(APP_SUM)

$(KAFKA_JARS): deploy/kafka/pom.xml deploy/kafka/jars.sha256 $(PACKAGES)
	@$(NEEDS_MVN); mkdir -p $(@D); deploy/progress.sh "jars of Kafka and ZooKeeper" $(COPY_JARS); touch $@

# Beside Spark's own jars, so that every program finds the source "kafka" without --packages.
$(SPARK_JARS): spark_cluster/pom.xml spark_cluster/jars.sha256 $(PACKAGES)
	@rm -f $(addprefix .venv/lib/python3*/site-packages/pyspark/jars/,$(notdir $(wildcard $@/*.jar))) # of older versions
	@$(NEEDS_MVN); mkdir -p $(@D); deploy/progress.sh "jars of Spark's Kafka connector" $(COPY_JARS)
	@cp $@/*.jar .venv/lib/python3*/site-packages/pyspark/jars/; touch $@

$(APP_SUM): java-sum/pom.xml $(wildcard java-sum/src/main/java/*)
	@$(NEEDS_MVN); deploy/progress.sh "the Java job (its tests: make test-spark)" $(MVN) -f $< package -DskipTests; touch $@
