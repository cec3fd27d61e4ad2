import java.nio.ByteBuffer;

/** Number of readings, and the sums of their temperatures (°C) and vibrations (g). Public for Flink's sake. */
public record Totals(long samples, double temperatures, double vibrations) {
    static final Totals NONE = new Totals(0, 0, 0);

    Totals plus(Totals more) {
        return new Totals(samples + more.samples, temperatures + more.temperatures, vibrations + more.vibrations);
    }

    /** (mean temperature + 100 × mean vibration) / 2; NaN while there is no reading. */
    double weight() {
        return (temperatures + 100 * vibrations) / samples / 2;
    }

    byte[] toBytes() {
        return ByteBuffer.allocate(3 * Long.BYTES).putLong(samples).putDouble(temperatures).putDouble(vibrations).array();
    }

    static Totals read(byte[] bytes) {
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        return new Totals(buffer.getLong(), buffer.getDouble(), buffer.getDouble());
    }
}
