import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.IntSupplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import sun.misc.Signal;

/** The life of either program: it starts, says {@code ready}, works, and ends on SIGTERM with exit code 0. */
final class Lifetime {
    /** The longest wait of any kind: for the broker, for the partitions, for the engine to stop. */
    static final int TIMEOUT_SECONDS = 60;

    /** Completed by SIGTERM or SIGINT; an engine that fails completes it with its error. */
    final CompletableFuture<Void> end = new CompletableFuture<>();

    /** What an engine does with its life; returns once it has stopped as asked, throws if it failed. */
    interface Program {
        void run(Options options, Lifetime lifetime) throws Exception;
    }

    /** Runs the program and ends the process, whatever threads an engine leaves behind. */
    static void run(String[] args, Program program) {
        System.exit(exitCode(args, program));
    }

    private static int exitCode(String[] args, Program program) {
        Options options;
        try {
            options = Options.parse(args);
        } catch (IllegalArgumentException refused) {
            System.err.println(refused.getMessage() + System.lineSeparator() + Options.USAGE);
            return 2;
        }
        try {
            program.run(options, new Lifetime());
            return 0;
        } catch (Exception failure) {
            failure.printStackTrace();
            return 1;
        }
    }

    private Lifetime() {
        // Not a shutdown hook: it would run beside those of the engines, and the exit code would be 143.
        for (String name : List.of("TERM", "INT")) Signal.handle(new Signal(name), signal -> end.complete(null));
    }

    static int partitionsOf(Options options) throws Exception {
        Map<String, Object> broker = Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, options.bootstrap());
        try (Admin admin = Admin.create(broker)) {
            return admin.describeTopics(List.of(options.input())).allTopicNames().get(TIMEOUT_SECONDS, TimeUnit.SECONDS)
                    .get(options.input()).partitions().size();
        }
    }

    /**
     * Prints {@code ready} once that many partitions are being read; returns false if the end came before that, throws
     * TimeoutException if it takes too long.
     */
    boolean readyWith(int wanted, IntSupplier partitionsRead) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(TIMEOUT_SECONDS);
        int seen;
        while ((seen = partitionsRead.getAsInt()) < wanted) {
            if (end.isDone()) return false;
            if (System.nanoTime() > deadline) {
                throw new TimeoutException(seen + " partitions are being read after " + TIMEOUT_SECONDS
                        + " s, expected " + wanted + "; is another instance of the same --node running?");
            }
            Thread.sleep(10);
        }
        System.out.println("ready");
        return true;
    }

    /** Blocks until the end; throws ExecutionException if the engine failed. */
    void await() throws InterruptedException, ExecutionException {
        end.get();
    }
}
