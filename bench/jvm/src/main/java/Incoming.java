/** A record as it was read from a topic; key and value may be null. Public, so that Flink can serialise it. */
public record Incoming(byte[] key, byte[] value, String topic, int partition, long offset) { }
