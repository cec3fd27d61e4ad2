"""What a simulated federation is made of: a scenario, nodes that train as asked, and the data they see."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from fedstream.errors import SettingError, StackError
from fedstream.files.options import FileOptions
from fedstream.learning.arrays import Arrays, distance
from fedstream.learning.models import Model
from fedstream.learning.scores import Score, score
from fedstream.learning.training import Scaler, train, train_config, train_seed
from fedstream.messages.door import encode
from fedstream.messages.readings import Reading, reading_format
from fedstream.messages.rounds import GlobalModel, ModelUpdate, check_size, model_update
from fedstream.messages.weights import NodeWeight, RunningSums, sums_of
from fedstream.settings import Settings
from fedstream.simulation.partitions import BY, Indices, Spread

ATTACKS = ("sign-flip", "noise", "label-flip", "scale:FACTOR")
ATTACK_STRENGTH = 4.0  # of sign-flip and noise, in lengths of the honest step
NODES = 10
USUAL, STRAGGLER = 0.1, 1.5  # deadlines that a node's training takes, give or take a tenth


@dataclass(frozen=True)
class Scenario:
    """What a simulation adds to the settings.

    `readings_per_round` makes each node's rows a stream: so many new ones a round, each tested, then trained on, once;
    without it a node trains on all its rows in every round. `attackers` and `stragglers` are numbers of nodes.
    `dropout` is the probability that a node says nothing in a round. `positive` is the label that the scores of two
    classes speak of, without it the rarer one. `test` names what is held out, a file or `by:COLUMN=VALUE`, without it a
    fourth of each class.

    Raises:
        SettingError: a value is out of range.
    """

    nodes: int | None = None  # NODES; with partition `by:COLUMN` as many as the column has values
    rounds: int = 30
    data: str = "sensors"
    label: str | None = None
    reading: FileOptions = field(default_factory=FileOptions)  # of a data file
    positive: str | None = None
    test: tuple[str, ...] = ()
    rows: int | None = None
    partition: str = "iid"
    readings_per_round: int | None = None
    scaling: str = "shared"
    attackers: int = 0
    attack: str = "sign-flip"
    dropout: float = 0.0
    stragglers: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        self.attack_factor()
        most = sys.maxsize if self.known_nodes is None else self.known_nodes
        some = "0 or more" if self.known_nodes is None else f"0 to {most}, the number of nodes"
        for name, good, expected in (
            ("nodes", most >= 1, "at least 1"),
            ("rounds", self.rounds >= 1, "at least 1"),
            ("readings_per_round", self.readings_per_round is None or self.readings_per_round >= 1, "at least 1"),
            ("scaling", self.scaling in ("shared", "local", "none"), "shared, local or none"),
            ("attackers", 0 <= self.attackers <= most, some),
            ("stragglers", 0 <= self.stragglers <= most, some),
            ("dropout", 0 <= self.dropout <= 0.95, "0 to 0.95"),
        ):
            if not good:
                raise SettingError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    @property
    def known_nodes(self) -> int | None:
        """How many nodes there are; None: the data tell."""
        return NODES if self.nodes is None and not self.partition.startswith(BY) else self.nodes

    def attack_factor(self) -> float:
        """Return what an attacker multiplies its honest step by."""
        kind, _, text = self.attack.partition(":")
        if self.attack in ATTACKS[:3]:
            return {"sign-flip": -ATTACK_STRENGTH}.get(self.attack, 1.0)
        with suppress(ValueError):
            if kind == "scale" and math.isfinite(float(text)):
                return float(text)
        raise SettingError(f"attack is {self.attack!r}; expected {', '.join(ATTACKS)}")


@dataclass
class Node:
    """A node: its rows, its manners, and how far it has come."""

    number: int
    rows: Indices  # in the order in which they arrive
    is_attacker: bool
    seconds: float  # of a training
    seen: int = 0  # rows that have arrived: they count for the features' scale
    trained: int = 0  # rows that it has trained on
    asked: int = 0  # the last round it was asked in
    is_busy: bool = False
    update_bytes: int = 0  # of what it has sent
    model_bytes: int = 0  # of what it has read

    @property
    def name(self) -> str:
        """Its name in the messages."""
        return f"fog-{self.number}"


@dataclass
class World:
    """The nodes, their data, and what is measured."""

    settings: Settings
    scenario: Scenario
    data: Spread
    model: Model
    random: np.random.RandomState

    def nodes(self) -> list[Node]:
        """Return the nodes; which are attackers and which are slow depends on the seed."""
        order = self.random.permutation(len(self.data.parts)).tolist()
        attackers, slow = order[: self.scenario.attackers], order[len(order) - self.scenario.stragglers :]
        deadline, parts = self.settings.round_deadline_seconds, self.data.parts
        return [
            Node(i + 1, rows, i in attackers, deadline * (STRAGGLER if i in slow else USUAL), len(self.batch(rows, 0)))
            for i, rows in enumerate(parts)
        ]

    def batch(self, rows: Indices, start: int) -> Indices:
        """Return the rows that a node trains on next; those of a stream do not come again."""
        count = self.scenario.readings_per_round
        return rows[start : start + count] if count else rows

    def is_over(self, nodes: list[Node]) -> bool:
        """Tell whether all rows of a stream have been used."""
        return bool(self.scenario.readings_per_round) and all(node.trained == len(node.rows) for node in nodes)

    def sums(self, node: Node) -> RunningSums:
        """Return what a node knows of its features' scale."""
        return sums_of(self.data.train.x[node.rows[: node.seen]])

    def running(self, node: Node) -> NodeWeight:
        """Return the part of a node's message that is no model: what it has seen of the features."""
        known = self.sums(node)
        return NodeWeight(node.name, 0.0, known.count, 0, known.sums, known.squares)

    def answer(self, node: Node, opened: GlobalModel, now: int) -> ModelUpdate:
        """Return a node's update of a round."""
        rows = self.batch(node.rows, node.trained)
        if self.scenario.readings_per_round:
            node.trained += len(rows)
            node.seen = max(node.seen, node.trained)
        x, y, classes = self.data.train.x[rows], self.data.train.y[rows], self.data.train.classes
        update = model_update(self.running(node), opened, now)
        if len(rows):
            if node.is_attacker and self.scenario.attack == "label-flip":
                y = classes - 1 - y
            scaler = self.sums(node).scaler() if self.scenario.scaling == "local" else opened.scaler
            config = train_config(self.settings, opened.config)
            seed = train_seed(self.settings, opened.round, node.number)
            what = f"{node.name} cannot learn in round {opened.round}"
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # told by name, below
                    trained = train(
                        self.model, opened.arrays, scaler, x, y, config, seed, self.settings.decision_threshold
                    )
            except ValueError as error:  # scikit-learn's answer to numbers that grow beyond all bounds
                raise StackError(f"{what}: {error}; try a lower LEARNING_RATE") from error
            arrays = self._attack(opened.arrays, trained.arrays) if node.is_attacker else trained.arrays
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise StackError(f"{what}: its weights would be NaN or infinite; try a lower LEARNING_RATE")
            learned = {"arrays": arrays, "score": trained.score}
            update = model_update(self.running(node), opened, now, len(rows), **learned)
        check_size(update, f"the update of {node.name}", self.settings.max_update_bytes)
        return update

    def _attack(self, base: Arrays, honest: Arrays) -> Arrays:
        factor = self.scenario.attack_factor()
        steps = {name: factor * (array - base[name]) for name, array in honest.items()}
        if self.scenario.attack == "noise":
            noise = {name: self.random.normal(size=array.shape) for name, array in honest.items()}
            size = distance(noise, {name: np.zeros_like(array) for name, array in noise.items()})
            strength = ATTACK_STRENGTH * distance(honest, base) / size
            steps = {name: strength * array for name, array in noise.items()}
        return {name: base[name] + step for name, step in steps.items()}

    def test(self, arrays: Arrays, scalers: list[Scaler | None]) -> Score:
        """Score arrays on the held-out rows: as one scaler sees them, or each node's own rows as its scaler does."""
        x, y = self.data.test.x, self.data.test.y
        everything = [np.arange(len(y))] * len(scalers)
        parts = self.data.test_parts if self.data.test_parts and len(scalers) > 1 else everything
        threshold, total = self.settings.decision_threshold, Score()
        for scaler, rows in zip(scalers, parts, strict=True):
            if not len(rows):  # a node may have none among those that were held out
                continue
            scaled = scaler.apply(x[rows]) if scaler else x[rows]
            total += score(self.model.predict(arrays, scaled), y[rows], threshold)
        return total

    def majority(self) -> tuple[str, Score]:
        """Return the label that most training rows have, and the score of a model that says nothing else.

        Its probabilities are the classes' shares, as those of scikit-learn's DummyClassifier(strategy="prior").
        """
        train, y = self.data.train, self.data.test.y
        shares = np.bincount(train.y, minlength=train.classes) / len(train.y)
        label = int(shares.argmax())
        threshold = 0.0 if label == 1 else math.inf  # of two classes: always, or never, class 1
        return train.labels[label], score(np.tile(shares, (len(y), 1)), y, threshold)

    def reading_bytes(self, node: Node) -> int:
        """Return how long the readings that a node has learned from would be as messages on its topic."""
        data, sensor = self.data.train, f"node-{node.number}"
        rows = node.rows[: node.trained] if self.scenario.readings_per_round else node.rows
        pairs = zip(data.x[rows].tolist(), data.y[rows].tolist(), strict=True)
        if data.settings:
            form = reading_format(data.settings)
            return sum(len(form.encode(Reading(sensor, tuple(values), label))) for values, label in pairs)
        names = data.features
        messages = ({"sensor_id": sensor, **dict(zip(names, x, strict=True)), "label": label} for x, label in pairs)
        return sum(len(encode(message)) for message in messages)

    def alone(self, rows: Indices, epochs: int) -> Score:
        """Score what one machine learns that has these training rows, and their scaler, to itself."""
        x, y = self.data.train.x[rows], self.data.train.y[rows]
        scaler = sums_of(x).scaler()
        config = replace(train_config(self.settings, {}), epochs=epochs)
        start = self.model.initial_arrays(self.settings.seed)
        seed = train_seed(self.settings, 0, 0)
        return self.test(self.model.fit(start, scaler.apply(x), y, config, seed), [scaler])
