import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Runs the whole program, as spark-submit does, on a real local Spark with two cores. */
class AppTest {
    private final ByteArrayOutputStream out = new ByteArrayOutputStream();
    private final ByteArrayOutputStream err = new ByteArrayOutputStream();

    /** What spark-submit gives on its command line comes from system properties here. */
    @BeforeEach
    void configureSpark() {
        System.setProperty("spark.master", "local[2]");
        System.setProperty("spark.ui.enabled", "false");
        System.setProperty("spark.driver.bindAddress", "127.0.0.1"); // no network needed
        System.setProperty("spark.driver.host", "localhost");
    }

    private int run(String... args) {
        return App.run(new PrintStream(out, true, StandardCharsets.UTF_8),
                new PrintStream(err, true, StandardCharsets.UTF_8), args);
    }

    private String out() {
        return out.toString(StandardCharsets.UTF_8);
    }

    private String err() {
        return err.toString(StandardCharsets.UTF_8);
    }

    /** Number of terms times (first + last) / 2, independently of the code under test. */
    private static long gauss(long first, long last) {
        return (last - first + 1) * (first + last) / 2;
    }

    @Test
    void printsExactlyOneLineForOneToHundred() {
        assertEquals(0, run());
        // 1+100, 2+99, ... : 50 pairs worth 101 each.
        assertEquals("La somme des entiers de 1 à 100 est : " + 50 * 101 + System.lineSeparator(), out());
        assertEquals("", err());
    }

    @ParameterizedTest
    @CsvSource({
        "1, 10", "0, 1", "7, 7", "1, 3", // one integer: an idle core; three: blocks of two sizes
        "-100, -1", "-5, 3", "-50, 50", // negative bounds, a sum of zero
        "1, 100000", // 5 000 050 000: more than 32 bits
        "1, 1000000000", // never held in memory
    })
    void sumsAnyRange(long first, long last) {
        assertEquals(0, run("" + first, "" + last));
        assertEquals("La somme des entiers de %d à %d est : %d%n"
                .formatted(first, last, gauss(first, last)), out());
    }

    @Test
    void reachesTheLargestLong() {
        String max = "" + Long.MAX_VALUE;
        assertEquals(0, run(max, max));
        assertEquals("La somme des entiers de %s à %s est : %s%n".formatted(max, max, max), out());
    }

    @ParameterizedTest
    @CsvSource({
        "1, 100, 50.5", // (1 + 100) / 2
        "1, 9, 5", // a whole mean has no decimals
        "-4, -1, -2.5",
        "-1, 1, 0",
        "10, 1000, 505", // no 5.05E+2
        "9007199254740993, 9007199254740994, 9007199254740993.5", // a double would round it
    })
    void meanIsExact(String first, String last, String mean) {
        assertEquals(0, run(first, "--mean", last));
        assertEquals("La moyenne des entiers de %s à %s est : %s%n"
                .formatted(first, last, mean), out());
    }

    @Test
    void meanWorksWithoutBounds() {
        assertEquals(0, run("--mean"));
        assertEquals("La moyenne des entiers de 1 à 100 est : 50.5" + System.lineSeparator(), out());
    }

    @ParameterizedTest
    @CsvSource({
        "9223372036854775800, 9223372036854775807", // inside a block
        "4611686018427387904, 4611686018427387905", // 2^62 + (2^62 + 1), when blocks are merged
        "-9223372036854775808, -9223372036854775804", // downwards
        "-9223372036854775808, 9223372036854775807", // 2^64 integers cannot even be counted
    })
    void overflowIsAnErrorNeverAWrongNumber(String first, String last) {
        assertEquals(1, run(first, last));
        assertEquals("", out());
        assertEquals("Erreur : dépassement de 64 bits en sommant de %s à %s%n"
                .formatted(first, last), err());
    }

    @ParameterizedTest
    @CsvSource(delimiter = ';', value = {
        "10 1                 ; bornes inversées   ; [10, 1]             ; PREMIER <= DERNIER",
        "1                    ; nombre de bornes   ; [1]                 ; aucune borne, ou deux",
        "1 2 3                ; nombre de bornes   ; [1, 2, 3]           ; aucune borne, ou deux",
        "1 dix                ; borne illisible    ; dix                 ; un entier de 64 bits",
        "1 2.5                ; borne illisible    ; 2.5                 ; un entier de 64 bits",
        "1 9223372036854775808; borne illisible    ; 9223372036854775808 ; un entier de 64 bits",
        "1 100 --median       ; option inconnue    ; --median            ; --mean",
        "1 100 -m             ; option inconnue    ; -m                  ; --mean",
    })
    void refusesBadArguments(String args, String wrong, String got, String expected) {
        System.clearProperty("spark.master"); // starting Spark would now throw
        assertEquals(2, run(args.split(" ")));
        assertEquals("", out());
        assertEquals("Erreur : %s : reçu « %s », attendu : %s%n%s%n"
                .formatted(wrong, got, expected, App.USAGE), err());
    }
}
