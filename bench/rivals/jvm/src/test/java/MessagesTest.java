import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Tables use the quote ` so that JSON's own quotes stand as they are. */
class MessagesTest {
    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
        "{\"n\":59}                              | {\"n\":59,\"square\":3481}", // 59 * 59 = 3600 - 120 + 1
        "{\"n\":-7}                              | {\"n\":-7,\"square\":49}",
        " { \"at\" : [1,{\"n\":2}] , \"n\" : 3 } | {\"n\":3,\"square\":9}", // unknown fields are ignored
        // The largest one: 3037000499^2 = 9223372030926249001 < 2^63 = 9223372036854775808
        "{\"n\":3037000499}                      | {\"n\":3037000499,\"square\":9223372030926249001}",
    })
    void aNumberBecomesItsSquare(String value, String expected) {
        assertEquals(expected, new String(Messages.square(bytes(value)), StandardCharsets.UTF_8));
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "59", "[59]", "numbers", "{\"n\":\"59\"}", "{\"n\":5x}"})
    void whatIsNoNumberEndsTheRival(String value) {
        assertThrows(UncheckedIOException.class, () -> Messages.square(bytes(value)));
    }

    @Test
    void aSquareBeyond64BitsEndsTheRival() {
        assertThrows(ArithmeticException.class, () -> Messages.square(bytes("{\"n\":3037000500}")));
    }

    @Test
    void aReadingIsOneSample() {
        String value = "{\"sensor_id\":\"a\",\"label\":1,\"vibration\":0.071,\"temperature\":7.248e1,\"more\":[{}]}";
        assertEquals(new Totals(1, 72.48, 0.071), Messages.reading(bytes(value)));
    }

    // Halves and quarters: sums of them have no rounding.
    private static final Totals FIRST = new Totals(3, 60.5 + 70.25 + 80.25, 0.25 + 0.5 + 0.75);
    private static final Totals SECOND = new Totals(1, 85, 0.5);

    @Test
    void totalsAddUpAndAreReadAsTheyWereWritten() {
        assertEquals(new Totals(4, 296, 2), FIRST.plus(SECOND)); // 211 + 85, 1.5 + 0.5
        assertEquals(FIRST, Totals.NONE.plus(FIRST));
        assertEquals(FIRST, Totals.read(FIRST.toBytes()));
    }

    @Test
    void aWeightIsHalfOfMeanTemperatureAndHundredMeanVibrations() {
        // Over all four readings: (296 / 4 + 100 * 2 / 4) / 2 = (74 + 50) / 2
        Totals all = FIRST.plus(SECOND);
        assertEquals("{\"node_id\":\"fog-1\",\"weight\":62.0,\"samples\":4}",
                new String(Messages.weight("fog-1", all), StandardCharsets.UTF_8));
        assertTrue(Double.isNaN(Totals.NONE.weight()));
    }

    @Test
    void theModeDecidesHowLongARecordMayWait() {
        String line = "weights --bootstrap b:1 --input in --output out --node n --parallelism 2 --state /s --mode ";
        assertEquals("0", Options.parse((line + "latency").split(" ")).producer().get("linger.ms"));
        Options slow = Options.parse((line + "throughput").split(" "));
        assertEquals("20", slow.producer().get("linger.ms"));
        assertEquals("flink-weights-in-n", slow.applicationId("flink"));
        assertThrows(IllegalArgumentException.class, () -> Options.parse(line.replace("--node n", "").split(" ")));
    }
}
