import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonParser.NumberType;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.StreamWriteFeature;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;

/** The messages of both workloads: read and checked, computed, written. Without Kafka, engine and clock. */
final class Messages {
    static final String DEAD_LETTER = "dead-letter";

    // The stack's default limits; fedstream/settings.py has them.
    static final double COLDEST_CELSIUS = -100;
    static final double HOTTEST_CELSIUS = 1000;
    static final double STRONGEST_VIBRATION_G = 1000;

    private static final JsonFactory JSON = JsonFactory.builder()
            .enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER)
            .enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER)
            .build();

    private Messages() { }

    /** {@code {"n":59}} becomes {@code {"n":59,"square":3481}}; what has no square becomes a dead letter. */
    static Outgoing square(Incoming record, String outputTopic, long nowMs) {
        try {
            long n = readNumber(record.value());
            String text = "{\"n\":" + n + ",\"square\":" + squareOf(n) + "}";
            return new Outgoing(outputTopic, record.key(), text.getBytes(StandardCharsets.ISO_8859_1));
        } catch (BadMessage bad) {
            return deadLetter(record, bad, nowMs);
        }
    }

    private static long squareOf(long n) throws BadMessage {
        try {
            return Math.multiplyExact(n, n);
        } catch (ArithmeticException overflow) {
            throw new BadMessage("n is " + n + "; its square does not fit 64 bits");
        }
    }

    static long readNumber(byte[] value) throws BadMessage {
        Long n = null;
        try (JsonParser parser = open(value)) {
            expectObject(parser);
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                boolean isN = parser.currentName().equals("n");
                JsonToken token = parser.nextToken();
                if (isN) {
                    boolean isWhole = token == JsonToken.VALUE_NUMBER_INT;
                    if (!isWhole || parser.getNumberType() == NumberType.BIG_INTEGER) {
                        throw wrong("n", parser, "a whole number of 64 bits");
                    }
                    n = parser.getLongValue();
                } else {
                    parser.skipChildren();
                }
            }
            expectEnd(parser);
        } catch (IOException error) {
            throw notJson(error);
        }
        if (n == null) throw new BadMessage("n is missing; expected a whole number of 64 bits");
        return n;
    }

    /** The totals of this one reading. */
    static Totals readReading(byte[] value) throws BadMessage {
        boolean hasSensor = false;
        boolean hasLabel = false;
        double temperature = Double.NaN;
        double vibration = Double.NaN;
        try (JsonParser parser = open(value)) {
            expectObject(parser);
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                String name = parser.currentName();
                JsonToken token = parser.nextToken();
                switch (name) {
                    case "sensor_id" -> {
                        hasSensor = token == JsonToken.VALUE_STRING && parser.getTextLength() > 0;
                        if (!hasSensor) throw wrong(name, parser, "a non-empty string");
                    }
                    case "temperature" -> temperature = number(parser, name, COLDEST_CELSIUS, HOTTEST_CELSIUS);
                    case "vibration" -> vibration = number(parser, name, 0, STRONGEST_VIBRATION_G);
                    case "label" -> {
                        double label = token == JsonToken.VALUE_NUMBER_INT ? parser.getDoubleValue() : Double.NaN;
                        hasLabel = label == 0 || label == 1;
                        if (!hasLabel) throw wrong(name, parser, "the whole number 0 or 1");
                    }
                    default -> parser.skipChildren();
                }
            }
            expectEnd(parser);
        } catch (IOException error) {
            throw notJson(error);
        }
        if (!hasSensor) throw new BadMessage("sensor_id is missing; expected a non-empty string");
        if (Double.isNaN(temperature)) throw new BadMessage("temperature is missing; expected a number (°C)");
        if (Double.isNaN(vibration)) throw new BadMessage("vibration is missing; expected a number (g)");
        if (!hasLabel) throw new BadMessage("label is missing; expected the whole number 0 or 1");
        return new Totals(1, temperature, vibration);
    }

    /** The message of {@code model-weights}. */
    static Outgoing weight(String topic, String node, Totals totals) {
        byte[] value = write(json -> {
            json.writeStringField("node_id", node);
            json.writeNumberField("weight", totals.weight());
            json.writeNumberField("samples", totals.samples());
        });
        return new Outgoing(topic, node.getBytes(StandardCharsets.UTF_8), value);
    }

    /** The original bytes in base64, why they are bad, and where and when they were found. */
    static Outgoing deadLetter(Incoming record, BadMessage bad, long nowMs) {
        // What is quoted of the record may hold half of a surrogate pair, which cannot be written: it becomes "?".
        String reason = new String(bad.getMessage().getBytes(StandardCharsets.UTF_8), StandardCharsets.UTF_8);
        byte[] value = write(json -> {
            if (record.value() == null) {
                json.writeNullField("value");
            } else {
                json.writeBinaryField("value", record.value());
            }
            json.writeStringField("reason", reason);
            json.writeStringField("topic", record.topic());
            json.writeNumberField("partition", record.partition());
            json.writeNumberField("offset", record.offset());
            json.writeNumberField("time", nowMs);
        });
        return new Outgoing(DEAD_LETTER, null, value);
    }

    private static JsonParser open(byte[] value) throws BadMessage, IOException {
        if (value == null || value.length == 0) throw new BadMessage("empty value; expected a JSON object");
        return JSON.createParser(value);
    }

    private static void expectObject(JsonParser parser) throws BadMessage, IOException {
        if (parser.nextToken() != JsonToken.START_OBJECT) throw new BadMessage("not a JSON object");
    }

    private static void expectEnd(JsonParser parser) throws BadMessage, IOException {
        if (parser.nextToken() != null) throw new BadMessage("text behind the JSON object");
    }

    private static double number(JsonParser parser, String name, double low, double high)
            throws BadMessage, IOException {
        boolean isNumber = parser.currentToken().isNumeric();
        double number = isNumber ? parser.getDoubleValue() : Double.NaN;
        if (!(low <= number && number <= high)) { // this way round, NaN is refused, too
            throw wrong(name, parser, "a number from " + low + " to " + high);
        }
        return number;
    }

    private static BadMessage wrong(String name, JsonParser parser, String wanted) throws IOException {
        String got = parser.getText();
        return new BadMessage(name + " is " + got.substring(0, Math.min(got.length(), 100)) + "; expected " + wanted);
    }

    private static BadMessage notJson(IOException error) {
        // getMessage() would add where in the source it is, in three lines.
        boolean isParsers = error instanceof JsonProcessingException;
        String reason = isParsers ? ((JsonProcessingException) error).getOriginalMessage() : error.getMessage();
        return new BadMessage("not JSON: " + reason);
    }

    private interface Fields {
        void write(JsonGenerator json) throws IOException;
    }

    private static byte[] write(Fields fields) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream(128);
        try (JsonGenerator json = JSON.createGenerator(bytes)) {
            json.writeStartObject();
            fields.write(json);
            json.writeEndObject();
        } catch (IOException error) { // memory has none
            throw new UncheckedIOException(error);
        }
        return bytes.toByteArray();
    }
}
