# The only list of commands. `make` shows it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# .env, unless the variable is set in the shell or on the command line.
$(foreach assignment,$(shell sed -n 's/^\([A-Z][A-Z0-9_]*\)=\(.*\)/\1?=\2/p' .env),$(eval export $(assignment)))

# Which runner: docker if an engine with Compose answers, else local (no Docker).
ifndef STACK
ifeq ($(shell docker compose version >/dev/null 2>&1 && timeout 5 docker info >/dev/null 2>&1 && echo yes),yes)
STACK := docker
STACK_REASON := a Docker engine with Compose answers
else
STACK := local
STACK_REASON := no Docker engine with Compose answers
endif
else
STACK_REASON := chosen by STACK
endif
export STACK
ifeq ($(filter docker local,$(STACK)),)
$(error STACK is '$(STACK)'; expected docker or local)
endif
$(foreach number,NODES NODES_PER_DRIVER FOG_NODES_MAX UP_TIMEOUT_SECONDS,$(if $(shell [[ '$($(number))' =~ ^[1-9][0-9]*$$ ]] || echo bad),$(error $(number) is '$($(number))'; expected a whole number of at least 1)))

PYTHON := .venv/bin/python
JAVA_RIVALS := bench/rivals/jvm/target/classes
BENCH ?= quick
MINUTES ?= 60
OUTPUT := learning-curves.png
SAY = @echo "==>"

PLAIN_JOBS := sensors bridge# plain Python: no driver that could be asked whether it is well

include $(STACK)/runner.mk

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  runner: $(STACK) ($(STACK_REASON)); choose with STACK=docker or STACK=local"

setup: runner-setup ## install all that the runner needs (images, or packages and jars)

up: runner-say runner-up ## start the services; returns when a job can be submitted

down: runner-down ## stop jobs and services; all data is kept

clean: runner-clean ## stop everything and delete topics, checkpoints and outputs together

ps: runner-ps ## what runs, and is it well

reset: need-S runner-reset ## one job begins anew: first records, counts from 0; S=fog-2

logs: need-S runner-logs ## last lines of one service or job, followed in a terminal: S=fog-1

doctor: ## check this machine and the stack, with a remedy for each trouble
	@$(DOCTOR)

topics: ## the topics, with their partitions
	@$(KAFKA_TOPICS) --describe | grep -v '^\s' || true

run-producer: ## start the simulated sensors; ARGS="--rate 100"
	@$(call run_job,sensors,sensors,--nodes $(NODES) $(ARGS))

FOG_DRIVERS = $(shell seq $$((($(NODES) + $(NODES_PER_DRIVER) - 1) / $(NODES_PER_DRIVER))))
run-fog: ## start the fog nodes 1..NODES; NODES=2 NODES_PER_DRIVER=1 ARGS="--topic sensor-data"
	@if (($(words $(FOG_DRIVERS)) > $(FOG_NODES_MAX))); then echo "NODES is $(NODES); expected at most FOG_NODES_MAX=$(FOG_NODES_MAX) drivers (set it in .env, or host more nodes in one: NODES_PER_DRIVER)" >&2; exit 2; fi
	@$(call run_job,fog,$(foreach driver,$(FOG_DRIVERS),fog-$(driver)),$(ARGS))

run-cloud: ## start the cloud aggregator
	@$(call run_job,cloud,cloud,$(ARGS))

plot: ## learning curves of the newest run, into the picture OUTPUT
	@$(IN_STACK_PYTHON) -m fedstream.commands.cli plot --output - $(ARGS) >$(OUTPUT).new && mv $(OUTPUT).new $(OUTPUT) && echo "$(OUTPUT)"

run-squares: ## start the squares of the number stream; ARGS="--output DIR --format csv"
	@$(call run_job,squares,squares,$(ARGS))

run-bridge: ## pass the socket's numbers on to the topic numbers
	@$(call run_job,bridge,bridge,$(ARGS))

run-squares-kafka: ## squares over Kafka, within milliseconds; ARGS="--mode micro-batch"
	@$(call run_job,squares-kafka,squares-kafka,$(ARGS))

run-alerts: ## score each reading with the global model, within milliseconds
	@$(call run_job,alerts,alerts,$(ARGS))

run-sum: ## run the Java job; ARGS="1 1000 --mean"
	@$(RUN_SUM)

stop-jobs: runner-stop-jobs ## stop all jobs; the services go on

submit: ## submit a program of yours: APP=my_job.py ARGS="..." OPTS="--class Main"
	@if [[ -z '$(APP)' ]]; then echo 'APP is empty; expected a .py or .jar file: make submit APP=my_job.py' >&2; exit 2; fi
	@$(SUBMIT)

base-image: ## make BASE_IMAGE from Debian packages, where no image registry answers
	@docker/base-image.sh $(BASE_IMAGE)

demo: up ## everything from a bare clone: run the whole chain, check it, show it
	@$(MAKE) run-producer ARGS="--rate 100"
	@$(MAKE) -j3 run-fog run-cloud run-squares ARGS= MAX_READINGS_PER_UPDATE=300
	@{ $(MAKE) run-sum ARGS= || true; timeout 120 $(FOLLOW_SQUARES) || true; } | { $(IN_STACK_PYTHON) -m fedstream.commands.demo --nodes $(NODES); }
	@$(MAKE) plot ARGS=
	@echo; echo "The jobs go on: make ps, make logs S=fog-1, http://$(PUBLIC_HOST):$(SPARK_MASTER_UI_PORT). Stop with: make down"

bench: setup $(PYTHON) $(JAVA_RIVALS) ## this project's jobs beside their rivals: BENCH=quick or full, ARGS="--only Flink"
	@$(PYTHON) -m bench.rivals.compare --size $(BENCH) $(ARGS)

federated: setup $(PYTHON) ## how well it learns, beside one machine with all rows; ARGS="--stream --part mlp"
	@OMP_NUM_THREADS=1 $(PYTHON) -m bench.learning.federated $(ARGS)

growth: setup $(PYTHON) ## what more nodes, partitions, readings and parameters cost: ARGS="--axis nodes"
	@$(PYTHON) -m bench.endurance.growth $(ARGS)

soak: setup $(PYTHON) ## steady load for MINUTES=60: is anything lost, wrong, or does anything grow
	@$(PYTHON) -m bench.endurance.soak --minutes $(MINUTES) $(ARGS)

test: test-unit test-spark test-stack ## every test, the stack's on the chosen runner
	@echo "The stack was tested on the $(STACK) runner; on the other one: make test-stack STACK=$(filter-out $(STACK),docker local)"

test-unit: $(PYTHON) ## tests without Spark and Kafka (seconds)
	$(PYTHON) -m pytest tests/unit

test-spark: $(PYTHON) ## tests of the jobs' queries in a local Spark session, and of the Java job
	$(PYTHON) -m pytest tests/spark
	@if command -v mvn >/dev/null; then mvn -B -ntp -f java-sum/pom.xml test; else echo "SKIPPED the Java job's tests: no mvn in PATH"; fi

test-stack: setup $(PYTHON) ## tests of the real stack, on the chosen runner, beside a running one
	$(PYTHON) -m pytest tests/stack --durations=12

test-smoke: setup $(PYTHON) ## the most telling of the stack tests, on the chosen runner
	$(PYTHON) -m pytest tests/stack -m smoke --durations=12

lint: $(PYTHON) ## ruff, mypy, and the arrows between packages
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

need-S:
	@if [[ -z '$(S)' ]]; then echo 'S is empty; expected a name that make ps shows: make logs S=fog-1' >&2; exit 2; fi

runner-say:
	$(SAY) "runner: $(STACK) ($(STACK_REASON))"

# The package in a virtual environment of its own, with the exact versions of requirements.lock.
$(PYTHON): pyproject.toml requirements.lock
	$(SAY) "Python packages into .venv (Spark is the large one: about a minute)"
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 is $$(python3 --version); expected 3.11 or newer" >&2; exit 1; }
	@[[ -x $(PYTHON) ]] || python3 -m venv .venv || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@.venv/bin/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[spark,local,bench,dev]' || { rm -f $(PYTHON); exit 1; }
	@touch $(PYTHON)

$(JAVA_RIVALS): bench/rivals/jvm/pom.xml $(shell find bench/rivals/jvm/src -name '*.java' 2>/dev/null)
	$(SAY) "the rivals in Java"
	@command -v mvn >/dev/null || { echo "mvn is missing; on Debian: apt-get install maven" >&2; exit 1; }
	@mvn -B -q -ntp -f bench/rivals/jvm/pom.xml package
	@touch $@

.PHONY: $(shell sed -n 's/^\([a-zA-Z-]*\):.*/\1/p' Makefile $(STACK)/runner.mk)
