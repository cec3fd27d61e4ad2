import java.time.Duration;
import java.util.Properties;
import java.util.SortedMap;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * Kafka Streams, at least once: the engine's default. After a crash what came since the last commit counts twice.
 *
 * <p>weights: readings are summed where they are read, a task for each partition. Sums so far, not readings, go through
 * an internal topic of one partition to the task that merges the partitions into the node's weight.
 */
public final class KafkaStreamsRival {
    private static final String PARTITION_TOTALS = "partition-totals";
    private static final String NODE_TOTALS = "node-totals";

    private KafkaStreamsRival() { }

    public static void main(String[] args) {
        Options options = Options.parse(args);
        KafkaStreams streams = new KafkaStreams(topology(options), properties(options));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
    }

    private static Properties properties(Options options) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, options.applicationId("kafka-streams"));
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.bootstrap());
        properties.put(StreamsConfig.STATE_DIR_CONFIG, options.state().toString());
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, options.parallelism());
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 10_000); // as often as Flink's checkpoints
        if (options.workload() == Options.Workload.WEIGHTS) { // else totals that wait, wait for the next poll: 100 ms
            properties.put(StreamsConfig.POLL_MS_CONFIG, options.totalsIntervalMs());
        }
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        properties.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
        options.consumer().forEach((name, value) -> properties.put(StreamsConfig.consumerPrefix(name), value));
        options.producer().forEach((name, value) -> properties.put(StreamsConfig.producerPrefix(name), value));
        return properties;
    }

    private static Topology topology(Options options) {
        StreamsBuilder builder = new StreamsBuilder();
        Serde<byte[]> bytes = Serdes.ByteArray();
        var records = builder.stream(options.input(), Consumed.with(bytes, bytes));
        switch (options.workload()) {
            case SQUARES -> records.mapValues(Messages::square).to(options.output(), Produced.with(bytes, bytes));
            case WEIGHTS -> {
                builder.addStateStore(store(PARTITION_TOTALS));
                builder.addStateStore(store(NODE_TOTALS));
                records.process(() -> new PartitionTotals(options.totalsIntervalMs()), PARTITION_TOTALS)
                        .repartition(Repartitioned.with(Serdes.Integer(), bytes).withName("totals")
                                .withNumberOfPartitions(1))
                        .process(() -> new NodeTotals(options.node()), NODE_TOTALS)
                        .to(options.output(), Produced.with(bytes, bytes));
            }
        }
        return builder.build();
    }

    /** Totals by partition; in memory, and on a changelog topic at each commit. */
    private static StoreBuilder<KeyValueStore<Integer, byte[]>> store(String name) {
        return Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(name), Serdes.Integer(), Serdes.ByteArray())
                .withCachingEnabled();
    }

    /** Readings to their partition's totals so far (key: the partition). */
    private static final class PartitionTotals extends ContextualProcessor<byte[], byte[], Integer, byte[]> {
        private final int intervalMs;
        private KeyValueStore<Integer, byte[]> store;
        private Integer partition;
        private Totals totals = Totals.NONE;
        private long nextSendMs;
        private boolean isWaiting;

        PartitionTotals(int intervalMs) {
            this.intervalMs = intervalMs;
        }

        @Override
        public void init(ProcessorContext<Integer, byte[]> context) {
            super.init(context);
            store = context.getStateStore(PARTITION_TOTALS);
            partition = context.taskId().partition();
            byte[] known = store.get(partition);
            if (known != null) {
                totals = Totals.read(known);
                isWaiting = true; // the last ones may not have been sent before a crash
            }
            context.schedule(Duration.ofMillis(intervalMs), PunctuationType.WALL_CLOCK_TIME, nowMs -> {
                if (isWaiting) send(nowMs);
            });
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            totals = totals.plus(Messages.reading(record.value()));
            store.put(partition, totals.toBytes());
            isWaiting = true;
            long nowMs = context().currentSystemTimeMs();
            if (nowMs >= nextSendMs) send(nowMs);
        }

        private void send(long nowMs) {
            context().forward(new Record<>(partition, totals.toBytes(), nowMs));
            nextSendMs = nowMs + intervalMs;
            isWaiting = false;
        }
    }

    /** The partitions' totals to the node's weight. */
    private static final class NodeTotals extends ContextualProcessor<Integer, byte[], byte[], byte[]> {
        private final String node;
        private final SortedMap<Integer, Totals> partitions = new TreeMap<>(); // added in this order, always
        private KeyValueStore<Integer, byte[]> store;

        NodeTotals(String node) {
            this.node = node;
        }

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            super.init(context);
            store = context.getStateStore(NODE_TOTALS);
            try (KeyValueIterator<Integer, byte[]> known = store.all()) {
                known.forEachRemaining(each -> partitions.put(each.key, Totals.read(each.value)));
            }
        }

        @Override
        public void process(Record<Integer, byte[]> record) {
            Totals totals = Totals.read(record.value());
            partitions.put(record.key(), totals);
            store.put(record.key(), record.value());
            Totals sum = partitions.values().stream().reduce(Totals.NONE, Totals::plus);
            context().forward(new Record<>(null, Messages.weight(node, sum), record.timestamp()));
        }
    }
}
