import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.LongStream;
import org.apache.spark.sql.SparkSession;

/** Sum, or mean, of the integers of a range (both bounds included), computed by Spark. */
public final class App {
    static final String USAGE = "Usage : App [PREMIER DERNIER] [--mean]   (par défaut : 1 100)";

    /** A valid request: {@code first <= last}. */
    record Request(long first, long last, boolean mean) {
        /** How many integers; throws ArithmeticException from 2^63 on. */
        long count() { return Math.addExact(Math.subtractExact(last, first), 1); }
    }

    /** Reads the arguments; throws IllegalArgumentException saying what is wrong, got, expected. */
    static Request parse(String... args) {
        boolean mean = false;
        List<Long> bounds = new ArrayList<>();
        for (String arg : args) {
            if (arg.equals("--mean")) {
                mean = true;
                continue;
            }
            try {
                bounds.add(Long.parseLong(arg)); // before looking for a dash: -5 is a bound
            } catch (NumberFormatException e) {
                throw arg.matches("-\\D.*") ? refused("option inconnue", arg, "--mean")
                        : refused("borne illisible", arg, "un entier de 64 bits");
            }
        }
        if (bounds.isEmpty()) bounds = List.of(1L, 100L);
        if (bounds.size() != 2) throw refused("nombre de bornes", bounds, "aucune borne, ou deux");
        if (bounds.get(0) > bounds.get(1)) throw refused("bornes inversées", bounds, "PREMIER <= DERNIER");
        return new Request(bounds.get(0), bounds.get(1), mean);
    }

    private static IllegalArgumentException refused(String wrong, Object got, String expected) {
        String message = "%s : reçu « %s », attendu : %s".formatted(wrong, got, expected);
        return new IllegalArgumentException(message);
    }

    /** Exact sum; throws ArithmeticException if it, or a partial sum, does not fit in 64 bits. */
    static long sum(SparkSession spark, Request r) {
        try {
            long first = r.first(), count = r.count(); // plain longs: all that the tasks need
            // One block of consecutive integers per core, summed where it is: the integers are
            // never stored, only the partial sums come back.
            long block = (count - 1) / spark.sparkContext().defaultParallelism() + 1;
            return spark.range(0, count, block).toJavaRDD()
                    .map(start -> LongStream.range(start, start + Math.min(block, count - start))
                            .map(i -> first + i).reduce(0, Math::addExact))
                    .reduce(Math::addExact);
        } catch (Exception e) { // Spark wraps what a task throws: look for the overflow inside
            Throwable cause = e;
            while (cause != null && !(cause instanceof ArithmeticException)) cause = cause.getCause();
            if (cause == null) throw e;
            throw new ArithmeticException(
                    "dépassement de 64 bits en sommant de %d à %d".formatted(r.first(), r.last()));
        }
    }

    /** The line to print. The mean of consecutive integers is whole or a half: exact in decimal. */
    static String answer(Request r, long sum) {
        Object value = r.mean() ? BigDecimal.valueOf(sum).divide(BigDecimal.valueOf(r.count())) : sum;
        return "La %s des entiers de %d à %d est : %s"
                .formatted(r.mean() ? "moyenne" : "somme", r.first(), r.last(), value);
    }

    /** The whole program; returns its exit code: 0 done, 1 overflow, 2 wrong arguments. */
    static int run(PrintStream out, PrintStream err, String... args) {
        Request request;
        try {
            request = parse(args); // before Spark: a typing mistake is reported at once
        } catch (IllegalArgumentException e) {
            err.println("Erreur : " + e.getMessage() + System.lineSeparator() + USAGE);
            return 2;
        }
        // No master here: spark-submit --master decides.
        SparkSession spark = SparkSession.builder().appName("SommeEntiers").getOrCreate();
        try {
            out.println(answer(request, sum(spark, request)));
            return 0;
        } catch (ArithmeticException e) {
            err.println("Erreur : " + e.getMessage());
            return 1;
        } finally {
            spark.stop();
        }
    }

    /** Not System.out, whose encoding follows the locale: the accents must survive LANG=C. */
    private static PrintStream utf8(FileDescriptor fd) {
        return new PrintStream(new FileOutputStream(fd), true, StandardCharsets.UTF_8);
    }

    public static void main(String[] args) {
        int code = run(utf8(FileDescriptor.out), utf8(FileDescriptor.err), args);
        if (code != 0) System.exit(code); // spark-submit hands it on
    }
}
