import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;

/** The messages of both workloads, read, computed and written. Like the other rivals, these take what comes. */
final class Messages {
    private static final JsonFactory JSON =
            JsonFactory.builder().enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER).build();

    private Messages() { }

    /** {@code {"n":59}} becomes {@code {"n":59,"square":3481}}; throws ArithmeticException beyond 64 bits. */
    static byte[] square(byte[] value) {
        long[] n = new long[1];
        read(value, (name, parser) -> {
            if (name.equals("n")) n[0] = parser.getLongValue();
        });
        return bytes("{\"n\":" + n[0] + ",\"square\":" + Math.multiplyExact(n[0], n[0]) + "}");
    }

    /** The totals of this one reading. */
    static Totals reading(byte[] value) {
        double[] sums = new double[2];
        read(value, (name, parser) -> {
            if (name.equals("temperature")) sums[0] = parser.getDoubleValue();
            if (name.equals("vibration")) sums[1] = parser.getDoubleValue();
        });
        return new Totals(1, sums[0], sums[1]);
    }

    /** The message of {@code model-weights}; a node's name needs no escapes. */
    static byte[] weight(String node, Totals totals) {
        return bytes("{\"node_id\":\"" + node + "\",\"weight\":" + totals.weight()
                + ",\"samples\":" + totals.samples() + "}");
    }

    private interface Field {
        void read(String name, JsonParser parser) throws IOException;
    }

    /** Hands each field of a JSON object on; throws UncheckedIOException, which ends the rival, if it is none. */
    private static void read(byte[] value, Field field) {
        try (JsonParser parser = JSON.createParser(value)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) throw new IOException("not a JSON object");
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                String name = parser.currentName();
                parser.nextToken();
                field.read(name, parser);
                parser.skipChildren();
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
