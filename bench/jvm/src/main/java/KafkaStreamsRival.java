import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Branched;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * Kafka Streams.
 *
 * <p>Guarantee: at least once, the engine's default, with its default producer (idempotent, acks=all). After SIGTERM
 * nothing is repeated; after a crash, what was done since the last commit (10 s at most) is: squares and dead letters
 * then come twice. Weights stay exact: the state store holds, beside the totals of a partition, the offset they reach.
 *
 * <p>weights: readings are summed where they are read, a task for each partition. Sums so far, not readings, go through
 * an internal topic of one partition to the task that merges the partitions into the node's weight.
 */
public final class KafkaStreamsRival {
    private static final String PARTITION_TOTALS = "partition-totals";
    private static final String NODE_TOTALS = "node-totals";

    private KafkaStreamsRival() { }

    public static void main(String[] args) {
        Lifetime.run(args, KafkaStreamsRival::run);
    }

    private static void run(Options options, Lifetime lifetime) throws Exception {
        KafkaStreams streams = new KafkaStreams(topology(options), properties(options));
        streams.setUncaughtExceptionHandler(error -> {
            lifetime.end.completeExceptionally(error);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        int internal = options.workload() == Options.Workload.WEIGHTS ? 1 : 0;
        lifetime.readyWith(Lifetime.partitionsOf(options) + internal, () -> activePartitions(streams));
        lifetime.await();
        boolean isClosed = streams.close(Duration.ofSeconds(Lifetime.TIMEOUT_SECONDS));
        if (!isClosed) throw new TimeoutException("did not close within " + Lifetime.TIMEOUT_SECONDS + " s");
    }

    /** Number of partitions read; 0 until all threads have theirs and all state is restored. */
    private static int activePartitions(KafkaStreams streams) {
        if (streams.state() != KafkaStreams.State.RUNNING) return 0;
        return streams.metadataForLocalThreads().stream().flatMap(thread -> thread.activeTasks().stream())
                .mapToInt(task -> task.topicPartitions().size()).sum();
    }

    static Properties properties(Options options) {
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
        // A member with a name of its own takes its place back at once; a nameless one waits 45 s for its former self.
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG), options.node());
        properties.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
        options.consumer().forEach((name, value) -> properties.put(StreamsConfig.consumerPrefix((String) name), value));
        options.producer().forEach((name, value) -> properties.put(StreamsConfig.producerPrefix((String) name), value));
        return properties;
    }

    static Topology topology(Options options) {
        StreamsBuilder builder = new StreamsBuilder();
        Serde<byte[]> bytes = Serdes.ByteArray();
        var records = builder.stream(options.input(), Consumed.with(bytes, bytes));
        switch (options.workload()) {
            case SQUARES -> records.process(() -> new Squares(options.output()))
                    .to((key, square, context) -> square.topic(), Produced.with(bytes, Serdes.serdeFrom(
                            (topic, square) -> square.value(), (topic, value) -> new Outgoing(topic, null, value))));
            case WEIGHTS -> {
                builder.addStateStore(store(PARTITION_TOTALS));
                builder.addStateStore(store(NODE_TOTALS));
                records.process(() -> new PartitionTotals(options.totalsIntervalMs()), PARTITION_TOTALS)
                        .split()
                        .branch((partition, value) -> partition == null, Branched.withConsumer(
                                letters -> letters.to(Messages.DEAD_LETTER, Produced.with(Serdes.Integer(), bytes))))
                        .defaultBranch(Branched.withConsumer(totals -> totals
                                .repartition(Repartitioned.with(Serdes.Integer(), bytes).withName("totals")
                                        .withNumberOfPartitions(1))
                                .process(() -> new NodeTotals(options.output(), options.node()), NODE_TOTALS)
                                .to(options.output(), Produced.with(bytes, bytes))));
            }
        }
        return builder.build();
    }

    /** Totals by partition; in memory, and on a changelog topic at each commit. */
    private static StoreBuilder<KeyValueStore<Integer, byte[]>> store(String name) {
        return Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(name), Serdes.Integer(), Serdes.ByteArray())
                .withCachingEnabled();
    }

    private static Incoming incoming(Record<byte[], byte[]> record, RecordMetadata metadata) {
        return new Incoming(record.key(), record.value(), metadata.topic(), metadata.partition(), metadata.offset());
    }

    /** Numbers to squares and dead letters. */
    private static final class Squares extends ContextualProcessor<byte[], byte[], byte[], Outgoing> {
        private final String output;

        Squares(String output) {
            this.output = output;
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            Incoming number = incoming(record, context().recordMetadata().orElseThrow());
            Outgoing square = Messages.square(number, output, context().currentSystemTimeMs());
            context().forward(record.withKey(square.key()).withValue(square));
        }
    }

    /** Readings to their partition's totals so far (key: the partition), and dead letters (no key). */
    private static final class PartitionTotals extends ContextualProcessor<byte[], byte[], Integer, byte[]> {
        private final int intervalMs;
        private KeyValueStore<Integer, byte[]> store;
        private Integer partition;
        private Totals totals = Totals.NONE;
        private long nextOffset;
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
                ByteBuffer buffer = ByteBuffer.wrap(known);
                totals = Totals.read(buffer);
                nextOffset = buffer.getLong();
                isWaiting = true; // the last ones may not have been sent before a crash
            }
            context.schedule(Duration.ofMillis(intervalMs), PunctuationType.WALL_CLOCK_TIME, nowMs -> {
                if (isWaiting) send(nowMs);
            });
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            RecordMetadata metadata = context().recordMetadata().orElseThrow();
            long nowMs = context().currentSystemTimeMs();
            try {
                Totals reading = Messages.readReading(record.value());
                if (metadata.offset() < nextOffset) return; // counted before a crash
                totals = totals.plus(reading);
            } catch (BadMessage bad) {
                Outgoing letter = Messages.deadLetter(incoming(record, metadata), bad, nowMs);
                context().forward(record.withKey((Integer) null).withValue(letter.value()));
                return;
            }
            nextOffset = metadata.offset() + 1;
            ByteBuffer value = ByteBuffer.allocate(Totals.SIZE_BYTES + Long.BYTES);
            totals.write(value);
            store.put(partition, value.putLong(nextOffset).array());
            isWaiting = true;
            if (nowMs >= nextSendMs) send(nowMs);
        }

        private void send(long nowMs) {
            ByteBuffer value = ByteBuffer.allocate(Totals.SIZE_BYTES);
            totals.write(value);
            context().forward(new Record<>(partition, value.array(), nowMs));
            nextSendMs = nowMs + intervalMs;
            isWaiting = false;
        }
    }

    /** The partitions' totals to the node's weight. */
    private static final class NodeTotals extends ContextualProcessor<Integer, byte[], byte[], byte[]> {
        private final String output;
        private final String node;
        private final SortedMap<Integer, Totals> partitions = new TreeMap<>(); // added in this order, always
        private KeyValueStore<Integer, byte[]> store;

        NodeTotals(String output, String node) {
            this.output = output;
            this.node = node;
        }

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            super.init(context);
            store = context.getStateStore(NODE_TOTALS);
            try (KeyValueIterator<Integer, byte[]> known = store.all()) {
                known.forEachRemaining(each -> partitions.put(each.key, Totals.read(ByteBuffer.wrap(each.value))));
            }
        }

        @Override
        public void process(Record<Integer, byte[]> record) {
            Totals totals = Totals.read(ByteBuffer.wrap(record.value()));
            Totals known = partitions.getOrDefault(record.key(), Totals.NONE);
            if (totals.samples() < known.samples()) return; // read again after a crash
            partitions.put(record.key(), totals);
            store.put(record.key(), record.value());
            Totals sum = partitions.values().stream().reduce(Totals.NONE, Totals::plus);
            Outgoing weight = Messages.weight(output, node, sum);
            context().forward(new Record<>(weight.key(), weight.value(), record.timestamp()));
        }
    }
}
