# How the targets of the Makefile work with Docker: docker-compose.yml, one container for each service and job.

COMPOSE := docker compose --profile jobs
MASTER := $(CONTAINER_PREFIX)spark-master
export COMPOSE_IGNORE_ORPHANS := true

KAFKA_TOPICS = docker exec $(CONTAINER_PREFIX)kafka kafka-topics --bootstrap-server kafka:$(KAFKA_NETWORK_PORT)
DOCTOR = python3 -m fedstream.stack.doctor
IN_STACK_PYTHON = docker exec -i $(MASTER) python
FOLLOW_SQUARES = docker logs -f --tail 0 $(CONTAINER_PREFIX)squares 2>/dev/null
RUN_SUM = docker exec $(MASTER) spark_cluster/start-job.sh sum $(ARGS)
SUBMIT = docker cp $(APP) $(MASTER):/tmp/ && docker exec $(MASTER) spark-submit $(OPTS) /tmp/$(notdir $(APP)) $(ARGS)

runner-setup: runner-base
	$(SAY) "images (the first time some minutes, then seconds)"
	@$(COMPOSE) build

# The base image from a registry, or made here where none answers.
runner-base:
	@docker image inspect $(BASE_IMAGE) >/dev/null 2>&1 || { echo "==> base image $(BASE_IMAGE)"; \
	  timeout 120 docker pull -q $(BASE_IMAGE) || { echo "no registry served it: making it from Debian packages"; $(MAKE) base-image; }; }

runner-up: runner-setup
	@! command -v python3 >/dev/null || $(DOCTOR) --ports-only
	@docker compose up -d --wait --wait-timeout $(UP_TIMEOUT_SECONDS) || { $(what_failed); }

runner-down:
	@$(COMPOSE) down --remove-orphans
	@echo "stopped; data kept in the volumes of project $(COMPOSE_PROJECT_NAME)"

runner-clean:
	@$(COMPOSE) down --remove-orphans --volumes
	@echo "deleted the volumes of project $(COMPOSE_PROJECT_NAME): topics, checkpoints and outputs"

runner-ps:
	@docker ps -a --filter label=com.docker.compose.project=$(COMPOSE_PROJECT_NAME) --format 'table {{.Names}}\t{{.Status}}\t{{.Ports}}'
	@! command -v python3 >/dev/null || python3 -m fedstream.stack.parts

runner-reset:
	@$(need_stack); was=$$(docker inspect -f '{{.State.Status}}' $(CONTAINER_PREFIX)$(S) 2>/dev/null || true); \
	[[ -z $$was ]] || docker stop -t 30 $(CONTAINER_PREFIX)$(S) >/dev/null; \
	docker exec -e NODES_PER_DRIVER=$(NODES_PER_DRIVER) $(MASTER) python -m fedstream.commands.reset '$(S)' || code=$$?; \
	if [[ $$was =~ running|restarting ]]; then docker start $(CONTAINER_PREFIX)$(S); fi; exit $${code:-0}

runner-logs:
	@docker logs $$([[ -t 1 ]] && echo '-f --tail 100' || echo '--tail 1000') $(CONTAINER_PREFIX)$(S) 2>&1

need_stack = [[ $$(docker inspect -f '{{.State.Health.Status}}' $(MASTER) 2>/dev/null) == healthy ]] || { echo "the stack is not up (Docker runner); start it with: make up" >&2; exit 1; }

# run_job NAME,SERVICES,ARGS: start them (anew if their arguments changed) and wait until they work. Fog nodes beyond the
# second are the same service with another number.
define run_job
$(need_stack); printf '%s\n' 'services:' $(foreach node,$(filter-out fog-1 fog-2,$(filter fog-%,$(2))),$(call fog_service,$(node:fog-%=%))) '  $(firstword $(2)): {}' | \
JOB_ARGS='$(3)' docker compose --profile jobs -f docker-compose.yml -f - up -d --no-build --no-deps $(if $(filter-out $(PLAIN_JOBS),$(2)),--wait --wait-timeout $(UP_TIMEOUT_SECONDS)) $(2) || { $(what_failed); }
endef
define fog_service
'  fog-$(1): {extends: {file: docker-compose.yml, service: fog-1}, container_name: $(CONTAINER_PREFIX)fog-$(1), command: [spark_cluster/start-job.sh, fog, "$(1)"], ports: !override ["$(BIND_ADDRESS):$(FOG_UI_PORT_PREFIX)$(1):$(FOG_UI_PORT_PREFIX)$(1)"], healthcheck: {test: python -m fedstream.stack.health fog-$(1)}}'
endef

# Names the containers that are not well and shows the end of their logs.
define what_failed
for name in $$(docker ps -a --filter label=com.docker.compose.project=$(COMPOSE_PROJECT_NAME) --format '{{.Names}} {{.Status}}' | grep -vE 'Exited \(0\)|\(healthy\)|Up [^(]*$$' | cut -d' ' -f1); do \
  echo "--- $$name is not ready; end of its log:"; docker logs --tail 30 $$name 2>&1; done >&2; exit 1
endef

runner-stop-jobs:
	@docker ps -q --filter label=com.docker.compose.project=$(COMPOSE_PROJECT_NAME) --filter label=fedstream.job | xargs -r docker stop -t 30 >/dev/null
