import java.io.IOException;
import java.util.Map;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Flink: job manager, task manager and job in this one process, as a local environment starts them.
 *
 * <p>Guarantee: state is exact (checkpoints every 10 s, in --state), the Kafka sink at least once, as is usual where
 * outputs may not wait for a checkpoint.
 *
 * <p>weights: readings are summed where they are read, a task for each partition; these sums, not readings, go to the
 * one task that keeps the node's totals. Before each checkpoint the sums on their way are sent on.
 */
public final class FlinkRival {
    private FlinkRival() { }

    public static void main(String[] args) throws Exception {
        Options options = Options.parse(args);
        StreamExecutionEnvironment environment =
                StreamExecutionEnvironment.createLocalEnvironment(options.parallelism(), configuration(options));
        define(environment, options);
        environment.execute(options.applicationId("flink"));
    }

    private static Configuration configuration(Options options) {
        return Configuration.fromMap(Map.of(
                "execution.checkpointing.interval", "10 s",
                "execution.checkpointing.dir", options.state().toUri().toString(),
                // Between tasks; within a task records are handed over as Java objects.
                "execution.buffer-timeout.interval", options.lingerMs() + " ms",
                "pipeline.object-reuse", "true",
                "pipeline.generic-types", "false", // never the slow Kryo by accident
                "restart-strategy.type", "none", // an error ends the program, as it does Kafka Streams
                "rest.bind-address", "127.0.0.1",
                "jobmanager.bind-host", "127.0.0.1",
                "taskmanager.bind-host", "127.0.0.1"));
    }

    private static void define(StreamExecutionEnvironment environment, Options options) {
        KafkaSource<byte[]> source = KafkaSource.<byte[]>builder()
                .setBootstrapServers(options.bootstrap())
                .setTopics(options.input())
                .setGroupId(options.applicationId("flink"))
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setValueOnlyDeserializer(new Bytes())
                .setProperties(properties(options.consumer()))
                .build();
        var records = environment.fromSource(source, WatermarkStrategy.noWatermarks(), options.input()).uid("source");
        String node = options.node();
        switch (options.workload()) {
            case SQUARES -> write(options, records.map(Messages::square)
                    .returns(PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO));
            case WEIGHTS -> write(options, records
                    .transform("sums", TypeInformation.of(Totals.class), new Sums(options.totalsIntervalMs()))
                    .keyBy(totals -> node, Types.STRING).process(new Weights()).uid("weights").setParallelism(1));
        }
    }

    private static void write(Options options, DataStream<byte[]> values) {
        String output = options.output();
        KafkaSink<byte[]> sink = KafkaSink.<byte[]>builder()
                .setBootstrapServers(options.bootstrap())
                .setKafkaProducerConfig(properties(options.producer()))
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .setRecordSerializer((value, context, timestamp) -> new ProducerRecord<>(output, value))
                .build();
        values.sinkTo(sink).setParallelism(values.getParallelism()).uid("sink");
    }

    private static Properties properties(Map<String, String> options) {
        Properties properties = new Properties();
        properties.putAll(options);
        return properties;
    }

    /** A record's value as it is. */
    private static final class Bytes extends AbstractDeserializationSchema<byte[]> {
        @Override
        public byte[] deserialize(byte[] message) {
            return message;
        }
    }

    /** Readings to the sum of those since the last one sent. */
    private static final class Sums extends AbstractStreamOperator<Totals>
            implements OneInputStreamOperator<byte[], Totals> {
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
        public void processElement(StreamRecord<byte[]> element) {
            waiting = waiting.plus(Messages.reading(element.getValue()));
            long nowMs = System.currentTimeMillis();
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
    private static final class Weights extends KeyedProcessFunction<String, Totals, byte[]> {
        private transient ValueState<Totals> totals;

        @Override
        public void open(OpenContext context) {
            totals = getRuntimeContext().getState(new ValueStateDescriptor<>("totals", Totals.class));
        }

        @Override
        public void processElement(Totals sum, Context context, Collector<byte[]> out) throws IOException {
            Totals known = totals.value();
            Totals all = known == null ? sum : known.plus(sum);
            totals.update(all);
            out.collect(Messages.weight(context.getCurrentKey(), all));
        }
    }
}
