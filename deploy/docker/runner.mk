# How the Makefile reaches a stack in Docker: docker-compose.yml, one container for each service and job.

MASTER := $(CONTAINER_PREFIX)spark-master

KAFKA_TOPICS = docker exec $(CONTAINER_PREFIX)kafka kafka-topics --bootstrap-server kafka:$(KAFKA_NETWORK_PORT)
DOCTOR = python3 -m fedstream.stack.doctor
# A program in there cannot see whether a terminal is at this end.
IN_STACK_PYTHON = docker exec -i $$([[ ! -t 1 ]] || echo -e TERMINAL=yes) $(MASTER) python
FOLLOW_SQUARES = docker logs -f --tail 0 $(CONTAINER_PREFIX)squares 2>/dev/null
RUN_SUM = docker exec $(MASTER) spark_cluster/start-job.sh sum $(ARGS)
SUBMIT = docker cp $(APP) $(MASTER):/tmp/ && docker exec $(MASTER) spark-submit --conf spark.eventLog.enabled=true $(OPTS) /tmp/$(notdir $(APP)) $(ARGS)

runner-setup:
	@$(RUNNER) setup
