/** A record that cannot be used; the text is the reason kept beside it in {@code dead-letter}. */
final class BadMessage extends Exception {
    BadMessage(String reason) {
        super(reason, null, false, false); // no stack trace: it would cost more than all the rest of the record
    }
}
