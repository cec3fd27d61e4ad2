"""Publishing under a name that only one program may use: the newest of this name is the only one."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from fedstream.broker import kafka
from fedstream.broker.kafka import KafkaUnavailableError
from fedstream.errors import StackError
from fedstream.messages.door import encode
from fedstream.messages.topics import GLOBAL_MODEL, Outgoing
from fedstream.settings import Settings

TRY_SECONDS = 15.0  # a step of a transaction takes some ms; one that a broker has died in may never end

PAUSE_SECONDS = 0.5

# A producer whose transaction took too long, since its host was paused, is refused just like one that another has
# replaced. So the newest one's name is noted as the text beside an offset of a group that reads nothing.
_NOTE = TopicPartition(GLOBAL_MODEL, 0)


class FencedError(StackError):
    """Another program has taken over what only one may do."""


class SolePublisher:
    """Publishes in transactions: what one call publishes is seen as a whole or not at all.

    A transaction does not outlive a broker that was away: all of it is sent anew, in another one. If the broker had
    committed it just before, it comes twice, as it does from a driver that is started anew.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        """Take over from whoever publishes under this name.

        Raises:
            KafkaUnavailableError: no broker answered in time.
        """
        self._settings, self._name = settings, name
        self._me = f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex[:8]}"
        self._take(f"no owner of the name {name} could be noted", self._note_owner)
        self._producer: KafkaProducer | None = self._connect()

    def __call__(self, *outgoing: Outgoing) -> None:
        """Return when the broker has all messages (topic, key, message) on their topics, in their order.

        Raises:
            KafkaUnavailableError: it did not take them within `wait_timeout_seconds`.
            FencedError: there is a newer publisher of this name.
        """
        deadline = time.monotonic() + self._settings.wait_timeout_seconds
        old: KafkaProducer | None = None
        while outgoing:
            try:
                self._producer = self._producer or self._connect()
                self._publish(self._producer, outgoing)
            except KafkaUnavailableError as error:
                if time.monotonic() >= deadline:
                    raise
                logging.getLogger(__name__).warning("%s; all of it is sent anew", error.message)
                old, self._producer = self._producer or old, None
                time.sleep(PAUSE_SECONDS)
            else:
                break
        if old:
            with suppress(KafkaError):
                old.close(timeout=1)

    def _publish(self, producer: KafkaProducer, outgoing: tuple[Outgoing, ...]) -> None:
        self._take("no transaction began", producer.begin_transaction)
        answers = []
        for topic, key, message in outgoing:
            what = f"topic {topic} did not take a message of key {key}"
            value = None if message is None else encode(message)
            answers.append((what, self._take(what, producer.send, topic=topic, key=key and key.encode(), value=value)))
        for what, answer in answers:
            self._take(what, answer.get, timeout=TRY_SECONDS)
        self._take("a transaction was not committed", lambda: _within_try_seconds(producer.commit_transaction))

    def _connect(self) -> KafkaProducer:
        options: dict[str, Any] = {"transactional_id": self._name, "max_block_ms": int(1000 * TRY_SECONDS)}
        producer = kafka.connect_producer(self._settings, **options)
        try:
            self._expect_to_be_the_newest()
            self._take("no transactions are to be had", producer.init_transactions)
        except StackError:
            producer.close(timeout=0)
            raise
        return producer

    def _take(self, what: str, step: Callable[..., Any], **options: Any) -> Any:
        try:
            return step(**options)
        except KafkaError as error:
            if "ProducerFenced" in f"{error!r}" or "InvalidProducerEpoch" in f"{error!r}":
                self._expect_to_be_the_newest()
            brokers = self._settings.kafka_bootstrap_servers
            raise KafkaUnavailableError(f"{what} at {brokers}: {type(error).__name__}: {error}") from error

    def _note_owner(self) -> None:
        with closing(kafka.connect_consumer(self._settings, group_id=self._name)) as consumer:
            consumer.commit({_NOTE: OffsetAndMetadata(0, self._me, -1)})

    def _expect_to_be_the_newest(self) -> None:
        """Raise FencedError if another one is known to be newer."""
        try:
            with closing(kafka.connect_consumer(self._settings, group_id=self._name)) as consumer:
                note = consumer.committed(_NOTE, metadata=True)
        except (KafkaError, KafkaUnavailableError):
            return
        if note and note.metadata != self._me:
            raise FencedError(
                f"another {self._name} has been started on the topics at {self._settings.kafka_bootstrap_servers} "
                f"({note.metadata}): this one ends for good, since two would publish different results under the same "
                "names. To go on with this one, end the other and start this one again (if make started it: "
                f"make run-{self._name})"
            )


def _within_try_seconds(step: Callable[[], object]) -> None:
    """Do what the client would wait for without an end.

    Raises:
        kafka.errors.KafkaTimeoutError: it is not done in time.
    """
    ended: list[KafkaError | None] = []

    def run() -> None:
        try:
            step()
        except KafkaError as error:
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TRY_SECONDS)
    if not ended:
        raise KafkaTimeoutError(f"no answer within {TRY_SECONDS:g} s")
    if ended[0]:
        raise ended[0]
