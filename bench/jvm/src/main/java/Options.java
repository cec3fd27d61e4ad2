import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;

/** The command line, the same for both engines, and the options of the Kafka clients that follow from it. */
record Options(Workload workload, String bootstrap, String input, String output, String node, int parallelism,
        Path state, Mode mode) {
    static final String USAGE = "Usage: squares|weights --bootstrap HOST:PORT --input TOPIC --output TOPIC --node NAME"
            + " --parallelism P --state DIR [--mode latency|throughput]";

    enum Workload { SQUARES, WEIGHTS }

    /** LATENCY: every record goes out at once. THROUGHPUT: a record may wait 20 ms, for larger batches. */
    enum Mode { LATENCY, THROUGHPUT }

    private static final List<String> NAMES =
            List.of("--bootstrap", "--input", "--output", "--node", "--parallelism", "--state", "--mode");

    /** Reads the arguments; throws IllegalArgumentException saying what was got and what was expected. */
    static Options parse(String... args) {
        if (args.length == 0) throw refused("workload", "nothing", "squares or weights");
        Map<String, String> given = new HashMap<>(Map.of("--mode", "latency"));
        for (int i = 1; i < args.length; i += 2) {
            if (!NAMES.contains(args[i])) throw refused("option", args[i], "one of " + String.join(", ", NAMES));
            if (i + 1 == args.length) throw refused(args[i], "no value", "one");
            given.put(args[i], args[i + 1]);
        }
        for (String name : NAMES) {
            if (given.getOrDefault(name, "").isEmpty()) throw refused(name, "nothing", "a value");
        }
        return new Options(
                choice("workload", args[0], Workload.class), given.get("--bootstrap"), given.get("--input"),
                given.get("--output"), given.get("--node"), wholeNumber("--parallelism", given.get("--parallelism")),
                Path.of(given.get("--state")).toAbsolutePath(), choice("--mode", given.get("--mode"), Mode.class));
    }

    private static <E extends Enum<E>> E choice(String name, String got, Class<E> choices) {
        for (E each : choices.getEnumConstants()) {
            if (each.name().toLowerCase().equals(got)) return each;
        }
        throw refused(name, got, "one of " + List.of(choices.getEnumConstants()).toString().toLowerCase());
    }

    private static int wholeNumber(String name, String got) {
        if (!got.matches("[1-9][0-9]{0,2}")) throw refused(name, got, "a whole number from 1 to 999");
        return Integer.parseInt(got);
    }

    private static IllegalArgumentException refused(String name, String got, String expected) {
        return new IllegalArgumentException(name + ": got " + got + ", expected " + expected);
    }

    /** Names consumer group and internal topics: a second start with the same names goes on where the first ended. */
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

    Properties consumer() {
        return properties(Map.of(
                ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, "10",
                ConsumerConfig.MAX_POLL_RECORDS_CONFIG, mode == Mode.LATENCY ? "1000" : "10000"));
    }

    Properties producer() {
        return properties(Map.of(
                ProducerConfig.ACKS_CONFIG, "all",
                ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, "true",
                ProducerConfig.LINGER_MS_CONFIG, String.valueOf(lingerMs()),
                ProducerConfig.BATCH_SIZE_CONFIG, mode == Mode.LATENCY ? "16384" : "262144",
                // A dead letter is the original record in base64 (4/3 of its size) and some fields.
                ProducerConfig.MAX_REQUEST_SIZE_CONFIG, String.valueOf(2 * 1024 * 1024)));
    }

    private static Properties properties(Map<String, String> options) {
        Properties properties = new Properties();
        properties.putAll(options);
        return properties;
    }
}
