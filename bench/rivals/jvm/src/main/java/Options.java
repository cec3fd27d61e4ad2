import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;

/** The command line that all rivals share, and the options of the Kafka clients that follow from it. */
record Options(Workload workload, String bootstrap, String input, String output, String node, int parallelism,
        Path state, Mode mode) {
    enum Workload { SQUARES, WEIGHTS }

    /** LATENCY: every record goes out at once. THROUGHPUT: a record may wait 20 ms, for larger batches. */
    enum Mode { LATENCY, THROUGHPUT }

    /** Reads the arguments; throws IllegalArgumentException if one is missing or cannot be used. */
    static Options parse(String... args) {
        Map<String, String> given = new HashMap<>();
        for (int i = 1; i + 1 < args.length; i += 2) given.put(args[i], args[i + 1]);
        for (String name : new String[] {"bootstrap", "input", "output", "node", "parallelism", "state", "mode"}) {
            if (!given.containsKey("--" + name)) throw new IllegalArgumentException("--" + name + " is missing");
        }
        return new Options(
                Workload.valueOf(args[0].toUpperCase()), given.get("--bootstrap"), given.get("--input"),
                given.get("--output"), given.get("--node"), Integer.parseInt(given.get("--parallelism")),
                Path.of(given.get("--state")).toAbsolutePath(), Mode.valueOf(given.get("--mode").toUpperCase()));
    }

    /** Names consumer group and internal topics; the input of a run is its own. */
    String applicationId(String engine) {
        return String.join("-", engine, workload.name().toLowerCase(), input, node);
    }

    /** How long a record, or a change of the totals, may wait for others, in milliseconds. */
    int lingerMs() {
        return mode == Mode.LATENCY ? 0 : 20;
    }

    /** How often a node's totals go out at most, in milliseconds; the first change after a pause goes out at once. */
    int totalsIntervalMs() {
        return Math.max(1, lingerMs());
    }

    Map<String, String> consumer() {
        return Map.of(
                ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, "10",
                ConsumerConfig.MAX_POLL_RECORDS_CONFIG, mode == Mode.LATENCY ? "1000" : "10000");
    }

    Map<String, String> producer() {
        return Map.of(
                ProducerConfig.ACKS_CONFIG, "all",
                ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, "true",
                ProducerConfig.LINGER_MS_CONFIG, String.valueOf(lingerMs()),
                ProducerConfig.BATCH_SIZE_CONFIG, mode == Mode.LATENCY ? "16384" : "262144");
    }
}
