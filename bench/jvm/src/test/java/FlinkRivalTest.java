import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class FlinkRivalTest {
    @TempDir
    private Path state;

    private Path complete(String name, long atMs) throws IOException {
        Path folder = Files.createDirectories(state.resolve(name));
        assertTrue(Files.createFile(folder.resolve("_metadata")).toFile().setLastModified(atMs));
        return folder;
    }

    @Test
    void theNewestCompleteSnapshotIsTaken() throws IOException {
        complete("a1/chk-9", 5_000);
        Path newest = complete("b2/chk-3", 9_000);
        complete("savepoint-1", 7_000);
        Files.createDirectories(state.resolve("b2/chk-4")); // a checkpoint that was never finished
        assertEquals(Optional.of(newest), FlinkRival.newestSnapshot(state));
    }

    @Test
    void aFirstStartHasNoSnapshot() throws IOException {
        assertEquals(Optional.empty(), FlinkRival.newestSnapshot(state));
        assertEquals(Optional.empty(), FlinkRival.newestSnapshot(state.resolve("not-there")));
    }
}
