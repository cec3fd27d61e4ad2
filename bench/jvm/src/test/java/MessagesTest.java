import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Tables use the quote ` so that JSON's own quotes stand as they are. */
class MessagesTest {
    private static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(Outgoing record) {
        return new String(record.value(), StandardCharsets.UTF_8);
    }

    private static Incoming incoming(String value) {
        return new Incoming(bytes("k"), bytes(value), "numbers", 1, 42);
    }

    private static String reading(String fields) {
        return "{\"sensor_id\":\"node-1\"," + fields + "}";
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
        "{\"n\":59}                       | {\"n\":59,\"square\":3481}", // 59 * 59 = 3600 - 120 + 1
        "{\"n\":-7}                       | {\"n\":-7,\"square\":49}",
        "{\"n\":0}                        | {\"n\":0,\"square\":0}",
        " { \"at\" : [1,{\"n\":2}] , \"n\" : 3 } | {\"n\":3,\"square\":9}", // unknown fields are ignored
        // The largest one: 3037000499^2 = 9223372030926249001 < 2^63 = 9223372036854775808
        "{\"n\":3037000499}               | {\"n\":3037000499,\"square\":9223372030926249001}",
        "{\"n\":-3037000499}              | {\"n\":-3037000499,\"square\":9223372030926249001}",
    })
    void aNumberBecomesItsSquareUnderTheSameKey(String value, String expected) {
        Outgoing square = Messages.square(incoming(value), "squares", 0);
        assertEquals(expected, text(square));
        assertEquals("squares", square.topic());
        assertArrayEquals(bytes("k"), square.key());
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', nullValues = "null", value = {
        "null                         | empty value",
        "``                           | empty value",
        "59                           | not a JSON object",
        "[59]                         | not a JSON object",
        "{}                           | n is missing",
        "{\"m\":{\"n\":59}}           | n is missing",
        "{\"n\":5.0}                  | n is 5.0;",
        "{\"n\":\"59\"}               | n is 59;",
        "{\"n\":true}                 | n is true;",
        "{\"n\":null}                 | n is null;",
        "{\"n\":[1]}                  | n is [;",
        "{\"n\":3037000500}           | n is 3037000500; its square", // 9223372037000250000 > 2^63
        "{\"n\":9223372036854775808}  | n is 9223372036854775808; expected", // 2^63
        "{\"n\":59                    | not JSON",
        "{\"n\":59}}                  | not JSON",
        "{\"n\":59}{\"n\":59}         | text behind",
        "numbers                      | not JSON",
    })
    void whatHasNoSquareIsADeadLetter(String value, String reason) {
        Outgoing letter = Messages.square(incoming(value), "squares", 0);
        assertEquals("dead-letter", letter.topic());
        assertTrue(text(letter).contains("\"reason\":\"" + reason), text(letter));
    }

    @Test
    void aDeadLetterHoldsTheBytesAndWhereTheyWere() {
        // "abc" is 616263 in hexadecimal: 011000 010110 001001 100011 are 24 22 9 35, in base64 Y W J j.
        Outgoing letter = Messages.deadLetter(incoming("abc"), new BadMessage("why"), 1700);
        assertEquals("{\"value\":\"YWJj\",\"reason\":\"why\",\"topic\":\"numbers\",\"partition\":1,\"offset\":42,"
                + "\"time\":1700}", text(letter));
    }

    @Test
    void halfACharacterInWhatIsQuotedDoesNotStopIt() {
        assertTrue(text(Messages.square(incoming("{\"n\":\"\\ud83d\"}"), "squares", 0)).contains("n is ?; expected"));
        // The 100 characters that are quoted end within the pair: U+1F600 takes two of Java's.
        String cut = "x".repeat(99);
        Outgoing letter = Messages.square(incoming("{\"n\":\"" + cut + "\uD83D\uDE00\"}"), "squares", 0);
        assertTrue(text(letter).contains("n is " + cut + "?; expected"), text(letter));
    }

    @Test
    void noBytesStopIt() {
        Random random = new Random(1);
        byte[] good = bytes(reading("\"n\":59,\"x\":\"\\u00e9\",\"temperature\":7e1,\"vibration\":0.071,\"label\":1"));
        for (int i = 0; i < 20_000; i++) {
            byte[] value = Arrays.copyOf(good, random.nextInt(good.length + 1));
            for (int j = random.nextInt(4); j > 0 && value.length > 0; j--) {
                value[random.nextInt(value.length)] = (byte) random.nextInt(256);
            }
            Messages.square(new Incoming(null, value, "numbers", 0, i), "squares", 0);
            try {
                Messages.readReading(value);
            } catch (BadMessage bad) {
                Messages.deadLetter(new Incoming(null, value, "readings", 0, i), bad, 0);
            }
        }
    }

    @Test
    void aReadingIsOneSample() throws BadMessage {
        String value = reading("\"label\":1,\"vibration\":0.071,\"temperature\":72.48,\"more\":[{}]");
        assertEquals(new Totals(1, 72.48, 0.071), Messages.readReading(bytes(value)));
    }

    @ParameterizedTest
    @CsvSource({"-100, 0", "1000, 1000", "7e1, 5E-2"}) // the limits themselves are good
    void anyNumberWithinTheLimitsIsTaken(String temperature, String vibration) throws BadMessage {
        String value = reading("\"temperature\":%s,\"vibration\":%s,\"label\":0".formatted(temperature, vibration));
        Totals expected = new Totals(1, Double.parseDouble(temperature), Double.parseDouble(vibration));
        assertEquals(expected, Messages.readReading(bytes(value)));
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', nullValues = "null", value = {
        "null | empty value",
        "[]   | not a JSON object",
        "{\"temperature\":70,\"vibration\":0.05,\"label\":0}                        | sensor_id is missing",
        "{\"sensor_id\":\"\",\"temperature\":70,\"vibration\":0.05,\"label\":0}     | sensor_id is ;",
        "{\"sensor_id\":7,\"temperature\":70,\"vibration\":0.05,\"label\":0}        | sensor_id is 7;",
        "{\"sensor_id\":\"a\",\"vibration\":0.05,\"label\":0}                       | temperature is missing",
        "{\"sensor_id\":\"a\",\"temperature\":\"70\",\"vibration\":0.05,\"label\":0}| temperature is 70;",
        "{\"sensor_id\":\"a\",\"temperature\":-100.1,\"vibration\":0.05,\"label\":0}| temperature is -100.1;",
        "{\"sensor_id\":\"a\",\"temperature\":1e999,\"vibration\":0.05,\"label\":0} | temperature is 1e999;",
        "{\"sensor_id\":\"a\",\"temperature\":NaN,\"vibration\":0.05,\"label\":0}   | not JSON",
        "{\"sensor_id\":\"a\",\"temperature\":70,\"label\":0}                       | vibration is missing",
        "{\"sensor_id\":\"a\",\"temperature\":70,\"vibration\":null,\"label\":0}    | vibration is null;",
        "{\"sensor_id\":\"a\",\"temperature\":70,\"vibration\":-0.01,\"label\":0}   | vibration is -0.01;",
        "{\"sensor_id\":\"a\",\"temperature\":70,\"vibration\":1000.5,\"label\":0}  | vibration is 1000.5;",
        "{\"sensor_id\":\"a\",\"temperature\":70,\"vibration\":0.05}                | label is missing",
        "{\"sensor_id\":\"a\",\"temperature\":70,\"vibration\":0.05,\"label\":2}    | label is 2;",
        "{\"sensor_id\":\"a\",\"temperature\":70,\"vibration\":0.05,\"label\":1.0}  | label is 1.0;",
        "{\"sensor_id\":\"a\",\"temperature\":70,\"vibration\":0.05,\"label\":true} | label is true;",
        "{\"sensor_id\":\"a\",\"temperature\":70,\"vibration\":0.05,\"label\":0     | not JSON",
    })
    void aBadReadingIsRefusedWithItsReason(String value, String reason) {
        BadMessage bad = assertThrows(BadMessage.class, () -> Messages.readReading(bytes(value)));
        assertTrue(bad.getMessage().startsWith(reason), bad.getMessage());
    }

    @Test
    void invalidUtf8IsRefused() {
        byte[] value = bytes(reading("\"temperature\":70,\"vibration\":0.05,\"label\":0"));
        value[15] = (byte) 0xff; // inside node-1
        assertThrows(BadMessage.class, () -> Messages.readReading(value));
    }

    @Test
    void aWeightIsWrittenWithNodeAndSamples() {
        Outgoing weight = Messages.weight("model-weights", "fog \"1\"", new Totals(2, 150, 0.25));
        // Means 75 and 0.125: (75 + 12.5) / 2 = 43.75
        assertEquals("{\"node_id\":\"fog \\\"1\\\"\",\"weight\":43.75,\"samples\":2}", text(weight));
        assertArrayEquals(bytes("fog \"1\""), weight.key());
        assertEquals("model-weights", weight.topic());
    }
}
