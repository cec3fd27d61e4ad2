import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import org.junit.jupiter.api.Test;

class TotalsTest {
    // Halves and quarters: sums of them have no rounding.
    private static final Totals FIRST = new Totals(3, 60.5 + 70.25 + 80.25, 0.25 + 0.5 + 0.75);
    private static final Totals SECOND = new Totals(1, 85, 0.5);

    @Test
    void totalsOfUnequalPartsAddUp() {
        assertEquals(new Totals(4, 296, 2), FIRST.plus(SECOND)); // 211 + 85, 1.5 + 0.5
        assertEquals(FIRST, Totals.NONE.plus(FIRST));
    }

    @Test
    void weightIsHalfOfMeanTemperatureAndHundredMeanVibrations() {
        // Over all four readings: (296 / 4 + 100 * 2 / 4) / 2 = (74 + 50) / 2
        assertEquals(62, FIRST.plus(SECOND).weight());
        assertTrue(Double.isNaN(Totals.NONE.weight()));
    }

    @Test
    void totalsAreReadAsTheyWereWritten() {
        ByteBuffer buffer = ByteBuffer.allocate(2 * Totals.SIZE_BYTES);
        FIRST.write(buffer);
        SECOND.write(buffer);
        buffer.flip();
        assertEquals(FIRST, Totals.read(buffer));
        assertEquals(SECOND, Totals.read(buffer));
    }
}
