/** A record to be written to a topic. Public, so that Flink can serialise it. */
public record Outgoing(String topic, byte[] key, byte[] value) { }
