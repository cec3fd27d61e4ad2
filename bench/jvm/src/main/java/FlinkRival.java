import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import javax.management.MalformedObjectNameException;
import javax.management.ObjectName;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.core.execution.SavepointFormatType;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Flink: job manager, task manager and job in this one process, as a local environment starts them.
 *
 * <p>Guarantee: state is exact (aligned checkpoints every 10 s, in --state), the Kafka sink at least once, its usual
 * choice where outputs may not wait for a checkpoint; its producer is idempotent, with acks=all. SIGTERM stops the job
 * with a savepoint in --state and nothing is repeated. After a crash the job goes on from the newest checkpoint: what
 * came after it (10 s at most) is computed and written again, and weights step back before they catch up; the last one
 * is exact.
 *
 * <p>weights: readings are summed where they are read, a task for each partition; these sums, not readings, go to the
 * one task that keeps the node's totals. Before each checkpoint the sums on their way are sent on.
 */
public final class FlinkRival {
    private static final OutputTag<Outgoing> DEAD_LETTERS =
            new OutputTag<>("dead-letters", TypeInformation.of(Outgoing.class));

    private FlinkRival() { }

    public static void main(String[] args) {
        Lifetime.run(args, FlinkRival::run);
    }

    private static void run(Options options, Lifetime lifetime) throws Exception {
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(
                options.parallelism(), configuration(options, newestSnapshot(options.state())));
        define(environment, options);
        JobClient job = environment.executeAsync(options.applicationId("flink"));
        job.getJobExecutionResult().whenComplete((result, error) -> lifetime.end.completeExceptionally(
                error == null ? new IllegalStateException("the job ended by itself") : error));
        boolean wasReady = lifetime.readyWith(Lifetime.partitionsOf(options), FlinkRival::fetchedPartitions);
        lifetime.await();
        if (!wasReady) return; // a job that is still starting has nothing to keep, and cannot make a savepoint
        job.stopWithSavepoint(false, null, SavepointFormatType.NATIVE).get(Lifetime.TIMEOUT_SECONDS, TimeUnit.SECONDS);
    }

    static Configuration configuration(Options options, Optional<Path> snapshot) {
        Map<String, String> entries = new HashMap<>(Map.of(
                "execution.checkpointing.interval", "10 s",
                "execution.checkpointing.dir", options.state().toUri().toString(),
                "execution.checkpointing.savepoint-dir", options.state().toUri().toString(),
                "execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION",
                // Between tasks; within a task records are handed over as Java objects.
                "execution.buffer-timeout.interval", options.lingerMs() + " ms",
                "pipeline.object-reuse", "true",
                "pipeline.generic-types", "false", // never the slow Kryo by accident
                "restart-strategy.type", "none")); // an error ends the program, as it does Kafka Streams
        entries.putAll(Map.of(
                "rest.bind-address", "127.0.0.1",
                "jobmanager.bind-host", "127.0.0.1",
                "taskmanager.bind-host", "127.0.0.1"));
        snapshot.ifPresent(path -> entries.putAll(Map.of(
                "execution.state-recovery.path", path.toUri().toString(),
                "execution.state-recovery.claim-mode", "CLAIM"))); // deleted once there is a newer one
        return Configuration.fromMap(entries);
    }

    /** The folder of the newest checkpoint or savepoint; its metadata file is written last, when all is there. */
    static Optional<Path> newestSnapshot(Path state) throws IOException {
        if (!Files.exists(state)) return Optional.empty();
        try (Stream<Path> files = Files.walk(state, 3)) {
            return files.filter(path -> path.endsWith("_metadata"))
                    .max(Comparator.comparing(path -> path.toFile().lastModified()))
                    .map(Path::getParent);
        }
    }

    static void define(StreamExecutionEnvironment environment, Options options) {
        KafkaSource<Incoming> source = KafkaSource.<Incoming>builder()
                .setBootstrapServers(options.bootstrap())
                .setTopics(options.input())
                .setGroupId(options.applicationId("flink"))
                .setStartingOffsets(OffsetsInitializer.earliest()) // without a checkpoint
                .setDeserializer(new Envelope())
                .setProperties(options.consumer())
                .build();
        var records = environment.fromSource(source, WatermarkStrategy.noWatermarks(), options.input()).uid("source");
        String output = options.output();
        String node = options.node();
        switch (options.workload()) {
            case SQUARES -> write(options, "squares", records.map(
                    record -> Messages.square(record, output, System.currentTimeMillis())));
            case WEIGHTS -> {
                var sums = records.transform(
                        "sums", TypeInformation.of(Totals.class), new Sums(options.totalsIntervalMs()));
                var weights = sums.keyBy(totals -> node, Types.STRING).process(new Weights(output)).uid("weights");
                write(options, "dead-letters", sums.getSideOutput(DEAD_LETTERS));
                write(options, "model-weights", weights.setParallelism(1));
            }
        }
    }

    private static void write(Options options, String name, DataStream<Outgoing> records) {
        KafkaSink<Outgoing> sink = KafkaSink.<Outgoing>builder()
                .setBootstrapServers(options.bootstrap())
                .setKafkaProducerConfig(options.producer())
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .setRecordSerializer((record, context, timestamp) ->
                        new ProducerRecord<>(record.topic(), record.key(), record.value()))
                .build();
        records.sinkTo(sink).setParallelism(records.getParallelism()).name(name).uid(name);
    }

    /** Number of partitions that consumers of this process fetch: each has metrics from its first fetch on. */
    private static int fetchedPartitions() {
        try {
            ObjectName pattern = new ObjectName("kafka.consumer:type=consumer-fetch-manager-metrics,partition=*,*");
            return ManagementFactory.getPlatformMBeanServer().queryNames(pattern, null).size();
        } catch (MalformedObjectNameException error) {
            throw new IllegalStateException(error);
        }
    }

    /** A consumer's record with what a dead letter tells about it. */
    private static final class Envelope implements KafkaRecordDeserializationSchema<Incoming> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Incoming> out) {
            out.collect(new Incoming(
                    record.key(), record.value(), record.topic(), record.partition(), record.offset()));
        }

        @Override
        public TypeInformation<Incoming> getProducedType() {
            return TypeInformation.of(Incoming.class);
        }
    }

    /** Readings to the sum of those since the last one sent; bad ones to the side. */
    private static final class Sums extends AbstractStreamOperator<Totals>
            implements OneInputStreamOperator<Incoming, Totals> {
        private final int intervalMs;
        private transient Totals waiting;
        private transient long nextSendMs;
        private transient boolean hasTimer;

        Sums(int intervalMs) {
            this.intervalMs = intervalMs;
        }

        @Override
        public void open() throws Exception {
            super.open();
            waiting = Totals.NONE;
        }

        @Override
        public void processElement(StreamRecord<Incoming> element) {
            long nowMs = System.currentTimeMillis();
            try {
                waiting = waiting.plus(Messages.readReading(element.getValue().value()));
            } catch (BadMessage bad) {
                output.collect(DEAD_LETTERS, new StreamRecord<>(Messages.deadLetter(element.getValue(), bad, nowMs)));
                return;
            }
            if (nowMs >= nextSendMs) {
                send(nowMs);
            } else if (!hasTimer) {
                getProcessingTimeService().registerTimer(nextSendMs, atMs -> {
                    hasTimer = false;
                    send(System.currentTimeMillis());
                });
                hasTimer = true;
            }
        }

        /** Nothing is left to be kept: a checkpoint of this task is empty. */
        @Override
        public void prepareSnapshotPreBarrier(long checkpoint) {
            send(System.currentTimeMillis());
        }

        private void send(long nowMs) {
            if (waiting.samples() == 0) return;
            output.collect(new StreamRecord<>(waiting));
            waiting = Totals.NONE;
            nextSendMs = nowMs + intervalMs;
        }
    }

    /** Sums to the node's weight. */
    private static final class Weights extends KeyedProcessFunction<String, Totals, Outgoing> {
        private final String output;
        private transient ValueState<Totals> totals;

        Weights(String output) {
            this.output = output;
        }

        @Override
        public void open(OpenContext context) {
            totals = getRuntimeContext().getState(new ValueStateDescriptor<>("totals", Totals.class));
        }

        @Override
        public void processElement(Totals sum, Context context, Collector<Outgoing> out) throws IOException {
            Totals known = totals.value();
            Totals all = known == null ? sum : known.plus(sum);
            totals.update(all);
            out.collect(Messages.weight(output, context.getCurrentKey(), all));
        }
    }
}
