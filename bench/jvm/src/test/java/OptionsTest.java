import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class OptionsTest {
    private static final String GOOD =
            "weights --bootstrap b:1 --input in --output out --node fog-1 --parallelism 2 --state /s";

    private static Options parse(String line) {
        return Options.parse(line.split(" "));
    }

    @Test
    void aCommandLineIsRead() {
        assertEquals(new Options(Options.Workload.WEIGHTS, "b:1", "in", "out", "fog-1", 2, Path.of("/s"),
                Options.Mode.LATENCY), parse(GOOD));
    }

    @Test
    void theModeDecidesHowLongARecordMayWait() {
        assertEquals("0", parse(GOOD).producer().get("linger.ms"));
        assertEquals("20", parse(GOOD + " --mode throughput").producer().get("linger.ms"));
    }

    @Test
    void namesOfGroupsDifferWhereJobsDiffer() {
        assertEquals("flink-weights-in-fog-1", parse(GOOD).applicationId("flink"));
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', value = {
        "--parallelism 2 | --parallelism 0 | --parallelism: got 0, expected a whole number from 1 to 999",
        "--parallelism 2 | --parallelism x | --parallelism: got x, expected a whole number from 1 to 999",
        "weights         | weigths         | workload: got weigths, expected one of [squares, weights]",
        "--state /s      | --state         | --state: got no value, expected one",
        "--node fog-1    | --mode fast     | --node: got nothing, expected a value",
        "--state /s      | --state /s --mode fast | --mode: got fast, expected one of [latency, throughput]",
    })
    void aMistakeIsNamed(String good, String bad, String message) {
        var refused = assertThrows(IllegalArgumentException.class, () -> parse(GOOD.replace(good, bad)));
        assertEquals(message, refused.getMessage());
    }

    @Test
    void anUnknownOptionIsNamed() {
        var refused = assertThrows(IllegalArgumentException.class, () -> parse(GOOD + " --fast yes"));
        assertEquals("option: got --fast, expected one of --bootstrap, --input, --output, --node, --parallelism, "
                + "--state, --mode", refused.getMessage());
    }
}
