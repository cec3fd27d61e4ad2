# How the targets of the Makefile work without Docker: services and jobs under supervisor (deploy/local/supervisord.conf).

ENV := source deploy/local/env.sh
SUPERVISORCTL := supervisorctl -c deploy/local/supervisord.conf
RUNNING := $(SUPERVISORCTL) pid >/dev/null 2>&1
PROCESSES := python3 -m fedstream.stack.processes

KAFKA_TOPICS = $(ENV); kafka-topics --bootstrap-server $$KAFKA_BOOTSTRAP_SERVERS
DOCTOR = $(ENV); $(if $(wildcard $(PYTHON)),python,python3) -m fedstream.stack.doctor
IN_STACK_PYTHON = $(ENV); python
FOLLOW_SQUARES = tail -n 0 -F $(RUN_DIR)/logs/squares.log 2>/dev/null
RUN_SUM = $(ENV); spark_cluster/start-job.sh sum $(ARGS)
SUBMIT = $(ENV); spark-submit $(OPTS) $(APP) $(ARGS)
HEALTH = python -m fedstream.stack.health --timeout $(UP_TIMEOUT_SECONDS)

KAFKA_JARS := .venv/share/kafka
SPARK_JARS := .venv/share/spark-connector
APP_SUM := java-sum/target/app-sum-1.0-SNAPSHOT.jar
COPY_JARS = command -v mvn >/dev/null || { echo "mvn is missing; on Debian: apt-get install maven" >&2; exit 1; }; \
  mvn -B -q -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$@.new && rm -rf $@ && mv $@.new $@

runner-setup: $(PYTHON) $(KAFKA_JARS) $(SPARK_JARS) $(APP_SUM)

$(KAFKA_JARS): deploy/kafka/pom.xml $(PYTHON)
	$(SAY) "Kafka and ZooKeeper jars"
	@mkdir -p $(@D); $(COPY_JARS); touch $@

# Beside Spark's own jars, so that every program finds the source "kafka" without --packages.
$(SPARK_JARS): spark_cluster/pom.xml $(PYTHON)
	$(SAY) "Spark's Kafka connector jars"
	@rm -f $(addprefix .venv/lib/python3*/site-packages/pyspark/jars/,$(notdir $(wildcard $@/*.jar))) # of older versions
	@mkdir -p $(@D); $(COPY_JARS); cp $@/*.jar .venv/lib/python3*/site-packages/pyspark/jars/; touch $@

$(APP_SUM): java-sum/pom.xml $(wildcard java-sum/src/main/java/*)
	$(SAY) "the Java job (its tests: mvn -f java-sum/pom.xml test)"
	@mvn -B -q -f java-sum/pom.xml package -DskipTests; touch $@

# `make up` marks the folder that it makes; a folder of yours is not used, and not deleted.
EXPECT_OWN_FOLDER = $(ENV); if [[ ! -f $$RUN_PATH/.fedstream && -n $$(ls -A "$$RUN_PATH" 2>/dev/null) ]]; then \
  echo "RUN_DIR is '$$RUN_DIR', which is there and has no file .fedstream, the mark of a folder that make up has made; expected such a folder, an empty one or a new one, since make clean deletes it. Nothing was done. Choose another (RUN_DIR=.run), or, if an older version of the stack has made this one: touch $$RUN_DIR/.fedstream" >&2; exit 1; fi

runner-folder:
	@$(EXPECT_OWN_FOLDER)

runner-up: runner-folder setup
	@$(ENV); $(PROCESSES) --stop-left-over
	@$(ENV); mkdir -p "$$RUN_PATH"; touch "$$RUN_PATH/.fedstream"; mkdir -p $$RUN_PATH/logs $$DATA_DIR $$CHECKPOINT_DIR
	@$(ENV); if $(RUNNING); then $(SUPERVISORCTL) start zookeeper kafka topics spark-master spark-worker:* producer >/dev/null || true; \
	  else rm -rf "$$SPARK_RECOVERY_DIR"; python -m fedstream.stack.doctor --ports-only && supervisord -c deploy/local/supervisord.conf; fi
	@$(ENV); $(HEALTH) zookeeper kafka topics spark producer

runner-down:
	@$(ENV); $(PROCESSES) --stop; echo "stopped; data kept in $$RUN_DIR"

# Checkpoints that are still there afterwards lie outside of the folder.
runner-clean:
	@$(EXPECT_OWN_FOLDER)
	@$(ENV); $(PROCESSES) --stop
	@$(ENV); if [[ ! -f $$RUN_PATH/.fedstream ]]; then echo "nothing runs, and there is nothing to delete in $$RUN_DIR"; exit; fi; \
	  rm -rf "$$RUN_PATH"; echo "stopped; deleted $$RUN_DIR: topics, checkpoints, outputs and logs"; \
	  if [[ -d $$CHECKPOINT_DIR ]]; then echo "kept: the checkpoints in $$CHECKPOINT_DIR (CHECKPOINT_DIR), outside of $$RUN_DIR. They belong to topics that are gone: remove them before you start a job"; fi

runner-ps:
	@$(ENV); if $(RUNNING); then $(SUPERVISORCTL) status | grep -v 'Not started' || true; python -m fedstream.stack.parts; elif [[ -n $$($(PROCESSES)) ]]; then python -m fedstream.stack.parts; else echo "nothing runs (local runner); start with: make up STACK=local"; fi

runner-logs:
	@$(ENV); file=$$RUN_PATH/logs/$(S).log; if [[ ! -f $$file ]]; then echo "no log $$file; one of: $$(cd $$RUN_PATH/logs 2>/dev/null && ls -m *.log | sed 's/\.log//g')" >&2; exit 1; fi; \
	  if [[ -t 1 ]]; then tail -n 100 -F $$file; else tail -n 1000 $$file; fi

# run_job NAME,PROCESSES,ARGS: (re)start them if their arguments or settings changed, start them if they do not run, wait
# until they work.
define run_job
$(ENV); if ! $(RUNNING); then echo "the stack is not up (local runner); start it with: make up STACK=local" >&2; exit 1; fi; \
printf '%s\n' '$(3)' >$$RUN_PATH/$(1).args.new; { python -m fedstream.settings; echo "export NODES_PER_DRIVER=$(NODES_PER_DRIVER)"; } >$$RUN_PATH/$(1).env.new; \
for kind in args env; do \
  cmp -s $$RUN_PATH/$(1).$$kind.new $$RUN_PATH/$(1).$$kind || $(SUPERVISORCTL) stop $(call supervised,$(2)) >/dev/null || true; \
  mv $$RUN_PATH/$(1).$$kind.new $$RUN_PATH/$(1).$$kind; \
done; \
$(SUPERVISORCTL) start $(call supervised,$(2)) | grep -v 'already started' || true; \
$(if $(filter-out $(PLAIN_JOBS),$(2)),$(HEALTH) $(filter-out $(PLAIN_JOBS),$(2)),echo "  $(2)      started; see: make logs S=$(2)")
endef
supervised = $(foreach process,$(1),$(if $(filter fog-%,$(process)),fog:$(process),$(process)))

runner-reset:
	@$(ENV); was=$$($(SUPERVISORCTL) status $(call supervised,$(S)) 2>/dev/null || true); \
	$(SUPERVISORCTL) stop $(call supervised,$(S)) >/dev/null 2>&1 || true; \
	NODES_PER_DRIVER=$(NODES_PER_DRIVER) python -m fedstream.commands.reset '$(S)' || code=$$?; \
	if [[ $$was =~ RUNNING|STARTING|BACKOFF ]]; then $(SUPERVISORCTL) start $(call supervised,$(S)); fi; exit $${code:-0}

runner-stop-jobs:
	@$(ENV); if $(RUNNING); then $(SUPERVISORCTL) stop $(PLAIN_JOBS) fog:* cloud squares squares-kafka alerts | grep -v 'not running' || true; fi
