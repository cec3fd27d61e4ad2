"""Publishing under a name that only one program may use: the newest of this name is the only one."""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from fedstream.broker import kafka
from fedstream.broker.kafka import KafkaUnavailableError
from fedstream.errors import StackError
from fedstream.messages.topics import GLOBAL_MODEL, Outgoing
from fedstream.settings import Settings

TRY_SECONDS = 15.0  # a step of a transaction takes some ms; one that a broker has died in may never end
PAUSE_SECONDS = 0.5  # before all is sent anew

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
        self._brokers = settings.kafka_bootstrap_servers
        with self._replaced_told():
            kafka.take(f"no owner of the name {name} could be noted at {self._brokers}", self._note_owner)
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
                with self._replaced_told():
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
        kafka.take(f"no transaction began at {self._brokers}", producer.begin_transaction)
        kafka.send_all(producer, self._settings, outgoing, TRY_SECONDS)
        commit = functools.partial(kafka.within, TRY_SECONDS, producer.commit_transaction)
        kafka.take(f"a transaction was not committed at {self._brokers}", commit)

    def _connect(self) -> KafkaProducer:
        options: dict[str, Any] = {"transactional_id": self._name, "max_block_ms": int(1000 * TRY_SECONDS)}
        producer = kafka.connect_producer(self._settings, **options)
        try:
            self._expect_to_be_the_newest()
            kafka.take(f"no transactions are to be had at {self._brokers}", producer.init_transactions)
        except StackError:
            producer.close(timeout=0)
            raise
        return producer

    @contextmanager
    def _replaced_told(self) -> Iterator[None]:
        """Raise FencedError where the broker refuses this publisher because of another one."""
        try:
            yield
        except KafkaUnavailableError as error:
            if "ProducerFenced" in f"{error.__cause__!r}" or "InvalidProducerEpoch" in f"{error.__cause__!r}":
                self._expect_to_be_the_newest()
            raise

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
                f"another {self._name} has been started on the topics at {self._brokers} "
                f"({note.metadata}): this one ends for good, since two would publish different results under the same "
                "names. To go on with this one, end the other and start this one again (if make started it: "
                f"make run-{self._name})"
            )
