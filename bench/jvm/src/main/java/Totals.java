import java.nio.ByteBuffer;

/** Number of readings, and the sums of their temperatures (°C) and vibrations (g). Public for Flink's sake. */
public record Totals(long samples, double temperatures, double vibrations) {
    static final Totals NONE = new Totals(0, 0, 0);
    static final int SIZE_BYTES = Long.BYTES + 2 * Double.BYTES;

    Totals plus(Totals more) {
        return new Totals(samples + more.samples, temperatures + more.temperatures, vibrations + more.vibrations);
    }

    /** (mean temperature + 100 × mean vibration) / 2; NaN while there is no reading. */
    double weight() {
        return (temperatures + 100 * vibrations) / samples / 2;
    }

    void write(ByteBuffer into) {
        into.putLong(samples).putDouble(temperatures).putDouble(vibrations);
    }

    static Totals read(ByteBuffer from) {
        return new Totals(from.getLong(), from.getDouble(), from.getDouble());
    }
}
