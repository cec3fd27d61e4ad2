# The only list of commands. `make` shows it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# .env, unless the variable is set in the shell or on the command line.
$(foreach assignment,$(shell sed -n 's/^\([A-Z][A-Z0-9_]*\)=\(.*\)/\1?=\2/p' .env),$(eval export $(assignment)))

ifneq ($(words $(CURDIR)),1)
$(error this checkout lies in '$(CURDIR)'; expected a path without blanks, at which make, Maven and Spark split it. Move it: mv '$(CURDIR)' ~/$(subst $() ,-,$(notdir $(lastword $(CURDIR)))))
endif

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
is_whole = $(shell [[ '$($(1))' =~ ^[1-9][0-9]*$$ ]] && echo yes)
$(foreach name,NODES NODES_PER_DRIVER FOG_NODES_MAX UP_TIMEOUT_SECONDS FOG_UI_PORT_BASE,\
  $(if $(call is_whole,$(name)),,$(error $(name) is '$($(name))'; expected a whole number of at least 1)))
ifdef FOG_UI_PORT_PREFIX
$(error FOG_UI_PORT_PREFIX is '$(FOG_UI_PORT_PREFIX)'; expected FOG_UI_PORT_BASE instead, to which a fog driver's number is \
  added: FOG_UI_PORT_BASE=$(FOG_UI_PORT_PREFIX)0)
endif

PYTHON := .venv/bin/python
PACKAGES := .venv/.installed# a file of ours: .venv/bin/python is a link to the system's Python
JAVA_RIVALS := bench/rivals/jvm/target/classes
BENCH ?= quick
MINUTES ?= 60
OUTPUT := learning-curves.png
SAY = @echo "==>"

RUNNER := deploy/$(STACK)/stack.sh
RUN_JOB := deploy/$(STACK)/run-job.sh
MVN := mvn -B -q -ntp -Dstyle.color=never
PIP := .venv/bin/pip install --disable-pip-version-check
NEEDS_MVN = command -v mvn >/dev/null || { echo "mvn is missing; on Debian: apt-get install maven" >&2; exit 1; }

include deploy/$(STACK)/runner.mk

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  runner: $(STACK) ($(STACK_REASON)); choose with STACK=docker or STACK=local"

setup: runner-setup ## install all that the runner needs (images, or packages and jars)

up: check setup ## start the services; returns when a job can be submitted
	@$(RUNNER) up

down: ## stop jobs and services; all data is kept
	@$(RUNNER) down

clean: ## stop everything and delete topics, checkpoints and outputs together
	@$(RUNNER) clean

ps: ## what runs, and is it well
	@$(RUNNER) ps

reset: need-S ## one job begins anew, at the first record or FROM=15m (a time, an offset, end); S=fog-2
	@$(RUNNER) reset '$(S)' '$(FROM)'

skip: need-S ## one job passes over a record that cannot be read, its counts kept; S=fog-1 AT=topic:0:offset
	@$(RUNNER) skip '$(S)' '$(AT)'

logs: need-S ## last lines of one service or job, followed in a terminal: S=fog-1
	@$(RUNNER) logs '$(S)'

doctor: ## check this machine and the stack, with a remedy for each trouble
	@$(DOCTOR)

topics: need-stack ## the topics, with their partitions
	@$(KAFKA_TOPICS) --describe | grep -v '^\s' || true

run-producer: ## start the simulated sensors; ARGS="--rate 100"
	@$(RUN_JOB) sensors --nodes $(NODES) $(ARGS)

run-fog: ## start the fog nodes 1..NODES; NODES=2 NODES_PER_DRIVER=1 ARGS="--topic sensor-data"
	@$(RUN_JOB) fog $(ARGS)

run-cloud: ## start the cloud aggregator
	@$(RUN_JOB) cloud $(ARGS)

# What takes some time: its progress is shown, and the file is there once it is whole.
WRITE = @deploy/progress.sh "$(2)" bash -euc '$(IN_STACK_PYTHON) -m fedstream.commands.cli $(1) --output - $(ARGS) >$(2).new && mv $(2).new $(2)'

plot: need-stack ## learning curves of the newest run, into the picture OUTPUT
	$(call WRITE,plot,$(OUTPUT))

report: need-stack ## write down what the stack did, with its curves, as report.md (and .docx with pandoc): ARGS="--language fr"
	@$(MAKE) plot ARGS= OUTPUT=learning-curves.png
	$(call WRITE,report,report.md)
	@! command -v pandoc >/dev/null || { pandoc --from gfm --output report.docx report.md && echo report.docx; }

run-squares: ## start the squares of the number stream; ARGS="--output DIR --format csv"
	@$(RUN_JOB) squares $(ARGS)

run-bridge: ## pass the socket's numbers on to the topic numbers
	@$(RUN_JOB) bridge $(ARGS)

run-squares-kafka: ## squares over Kafka, within milliseconds; ARGS="--mode micro-batch"
	@$(RUN_JOB) squares-kafka $(ARGS)

run-alerts: ## score each reading with the global model, within milliseconds
	@$(RUN_JOB) alerts $(ARGS)

run-sum: need-stack ## run the Java job; ARGS="1 1000 --mean"
	@$(RUN_SUM)

monitoring: ## start Prometheus, with alert rules, on the metrics of the board and of Spark
	@$(RUNNER) monitoring
	@echo "Look: http://$(PUBLIC_HOST):$(PROMETHEUS_PORT)/alerts"

history: ## look back at programs that have ended: start Spark's history server
	@$(RUNNER) history
	@echo "Look: http://$(PUBLIC_HOST):$(SPARK_HISTORY_UI_PORT)"

stop-jobs: ## stop all jobs; the services go on
	@$(RUNNER) stop-jobs

submit: need-stack ## submit a program of yours: APP=my_job.py ARGS="..." OPTS="--class Main"
	@if [[ -z '$(APP)' ]]; then echo 'APP is empty; expected a .py or .jar file: make submit APP=my_job.py' >&2; exit 2; fi
	@$(SUBMIT)

# Where no image registry answers; not in the list, since `make setup` does it by itself.
base-image:
	@deploy/docker/offline/base-image.sh $(BASE_IMAGE)

demo: up ## everything from a bare clone: run the whole chain, check it, show it
	@$(RUN_JOB) sensors --nodes $(NODES) --rate 100
	@# The sum comes first, while the machine has nothing else to do. Micro-batches without a pause would take both cores
	@# of a small machine, from the demo's own start, too.
	@sum=$$($(MAKE) run-sum ARGS= 2>/dev/null) || true; \
	  MAX_READINGS_PER_UPDATE=300 TRIGGER_INTERVAL_MS=500 $(RUN_JOB) fog,cloud,squares; \
	  { echo "$$sum"; timeout 120 $(FOLLOW_SQUARES) || true; } 2>/dev/null | \
	  { $(IN_STACK_PYTHON) -m fedstream.commands.demo --nodes $(NODES); }
	@$(MAKE) plot ARGS=
	@echo; echo "The jobs go on: make ps, make logs S=fog-1, http://$(PUBLIC_HOST):$(SPARK_MASTER_UI_PORT). Stop with: make down"
	@echo "Watch them in a browser: http://$(PUBLIC_HOST):$(BOARD_PORT)"

bench: setup $(PACKAGES) $(JAVA_RIVALS) ## this project's jobs beside their rivals: BENCH=quick or full, ARGS="--only Flink"
	@$(PYTHON) -m bench.rivals.compare --size $(BENCH) $(ARGS)

federated: setup $(PACKAGES) ## how well it learns, beside one machine with all rows; ARGS="--stream --part mlp"
	@OMP_NUM_THREADS=1 $(PYTHON) -m bench.learning.federated $(ARGS)

growth: setup $(PACKAGES) ## what more nodes, partitions, readings and parameters cost: ARGS="--axis nodes"
	@$(PYTHON) -m bench.endurance.growth $(ARGS)

soak: setup $(PACKAGES) ## steady load for MINUTES=60: is anything lost, wrong, or does anything grow
	@$(PYTHON) -m bench.endurance.soak --minutes $(MINUTES) $(ARGS)

chaos: setup $(PACKAGES) ## kill and pause parts for MINUTES=60 while data flow: is anything lost; ARGS="--seed 7"
	@PYTHONPATH=. $(PYTHON) -m tests.stack.chaos --minutes $(MINUTES) $(ARGS)

test: test-unit test-board test-spark test-stack ## every test, the stack's on the chosen runner
	@echo "The stack was tested on the $(STACK) runner; on the other one: make test-stack STACK=$(filter-out $(STACK),docker local)"

test-unit: $(PACKAGES) ## tests without Spark and Kafka (some minutes)
	$(PYTHON) -m pytest tests/unit

test-board: $(PACKAGES) ## tests of the board's page in a browser, Debian's Chromium; ARGS=--picture draws that of README
	$(PYTHON) -m pytest tests/board $(ARGS)

test-spark: $(PACKAGES) ## tests of the jobs' queries in a local Spark session, and of the Java job
	$(PYTHON) -m pytest tests/spark
	@if command -v mvn >/dev/null; then mvn -B -ntp -Dstyle.color=never -f java-sum/pom.xml test; else echo "SKIPPED the Java job's tests: no mvn in PATH"; fi

test-stack: setup $(PACKAGES) ## tests of the real stack, on the chosen runner, beside a running one
	$(PYTHON) -m pytest tests/stack --durations=12

test-smoke: setup $(PACKAGES) ## the most telling of the stack tests, on the chosen runner
	$(PYTHON) -m pytest tests/stack -m smoke --durations=12

docs: $(PACKAGES) ## write the pages of docs/reference that follow from the code
	@PYTHONPATH=. $(PYTHON) docs/generate.py

lint: $(PACKAGES) ## ruff, mypy, the arrows between packages, and shellcheck
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	@.venv/bin/shellcheck $(shell git grep -lE '^#!.*bash|^# Sourced by' -- '*.sh' .ci deploy/bin) && echo "shellcheck: ok"

need-stack:
	@$(RUNNER) expect-stack

need-S:
	@if [[ -z '$(S)' ]]; then echo 'S is empty; expected a name that make ps shows: make logs S=fog-1' >&2; exit 2; fi

check: # before anything is installed
	$(SAY) "runner: $(STACK) ($(STACK_REASON))"
	@$(RUNNER) check

# The package in a virtual environment of its own, with the exact files of requirements.lock.
$(PACKAGES): pyproject.toml requirements.lock
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 is $$(python3 --version); expected 3.11 or newer" >&2; exit 1; }
	@[[ -x $(PYTHON) ]] || python3 -m venv .venv || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@deploy/progress.sh "Python packages into .venv (about a minute)" \
	  bash -c '$(PIP) --require-hashes -r requirements.lock && $(PIP) --no-deps --no-build-isolation -e .' && touch $@

$(JAVA_RIVALS): bench/rivals/jvm/pom.xml $(shell find bench/rivals/jvm/src -name '*.java' 2>/dev/null)
	@$(NEEDS_MVN); deploy/progress.sh "the rivals in Java" $(MVN) -f $< package
	@touch $@

.PHONY: $(shell sed -n 's/^\([a-zA-Z-]*\):.*/\1/p' Makefile deploy/$(STACK)/runner.mk)
