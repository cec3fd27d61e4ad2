"""How well the federation learns: beside one machine with all rows, beside Flower, under attack, with nodes that fail.

Every measured figure goes into docs/federated.json under its section's key; docs/federated.md and docs/federated.png
are made from that file, so that one section can be measured anew without the others.

Examples:
    make federated                              (all of it, on the chosen runner)
    make federated ARGS="--offline --only attacks --only flower"
    make federated ARGS=--stream                (on the real stack, which it starts; about 20 minutes)
    make federated ARGS="--stream --part mlp"
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import federated_report as report
import msgspec
import numpy as np
import streamed
from stack import RUNNER

from cloud import aggregator
from fedstream.learning.models import make_model
from fedstream.learning.scores import score
from fedstream.messages.door import decode, encode
from fedstream.messages.rounds import GlobalModel, ModelUpdate, model_update
from fedstream.messages.topics import MODEL_WEIGHTS
from fedstream.messages.weights import NodeWeight
from fedstream.rounds.federation import Federation
from fedstream.rounds.run_state import RunState, new_run
from fedstream.settings import Settings, command_help
from fedstream.simulation.data import load
from fedstream.simulation.partitions import spread
from fedstream.simulation.scenario import Scenario, World
from fedstream.simulation.simulate import simulate

DOCS = Path(__file__).parents[1] / "docs"
SEEDS = (11, 12, 13)  # other settings than those below were tried with the seeds 1 to 5, which give other splits
DATA = ("breast_cancer", "digits")
# Pinned, so that a changed default does not change a figure.
LOGISTIC: dict[str, Any] = {"model": "logistic", "local_epochs": 5, "learning_rate": 0.01, "train_batch_size": 64}
MLP: dict[str, Any] = {"model": "mlp", "local_epochs": 5, "learning_rate": 0.01, "train_batch_size": 64}
MODELS = {"logistic": LOGISTIC, "mlp": MLP}
DESCENT = MLP | {"model_options": "solver=sgd", "learning_rate": 0.1, "train_batch_size": 16}
# Rounds for unlike nodes: many short ones, so that no node walks far from the others before it hears of them.
# With their number and the seeds: an MLP takes several times as long.
SHORT = {
    "logistic": (LOGISTIC | {"local_epochs": 1}, 200, tuple(range(11, 21))),
    "mlp": (DESCENT | {"local_epochs": 2}, 100, tuple(range(11, 16))),
}
LONG_ROUNDS = 50
LONG = {
    "logistic": LOGISTIC,
    "logistic, FedAvgM with server_momentum=0.9": LOGISTIC
    | {"strategy": "FedAvgM", "strategy_options": "server_momentum=0.9"},
    "mlp, plain descent": DESCENT,
    "mlp, Adam": MLP,
}
HOSTILE = {
    "FedAvg": "",
    "FedMedian": "",
    "FedTrimmedAvg": "beta=0.3",
    "Krum": "num_malicious_nodes=3",
    "MultiKrum": "num_malicious_nodes=3,num_nodes_to_select=7",
}
BULYAN = "num_malicious_nodes=3"
FLOWER: dict[str, dict[str, Any]] = {name: {} for name in ("FedAvg", "FedAdam", "FedYogi", "FedAdagrad", "FedMedian")}
FLOWER |= {
    "FedProx": {"proximal_mu": 0.1},
    "FedAvgM": {"server_momentum": 0.9},
    "FedTrimmedAvg": {"beta": 0.3},
    "Krum": {"num_malicious_nodes": 3},
    "MultiKrum": {"num_malicious_nodes": 3, "num_nodes_to_select": 7},
    "Bulyan": {"num_malicious_nodes": 1},
}


def spread_of(values: Iterable[float]) -> dict[str, float]:
    """Return mean and standard deviation over the seeds, and the extremes."""
    found = list(values)
    deviation = statistics.stdev(found) if len(found) > 1 else 0.0
    return {"mean": statistics.fmean(found), "std": deviation, "min": min(found), "max": max(found)}


@cache
def pool() -> ProcessPoolExecutor:
    """Return the processes that simulate, one for each core."""
    return ProcessPoolExecutor(os.cpu_count())


def simulate_seed(settings: dict[str, Any], scenario: dict[str, Any], baselines: bool, seed: int) -> dict[str, Any]:
    """Simulate with one seed, in a process of its own; return the result with its processor time."""
    before = time.process_time()
    result = simulate(Settings(**settings, seed=seed), Scenario(**scenario), baselines=baselines)
    return result | {"cpu_seconds": time.process_time() - before}


def runs(
    settings: dict[str, Any], scenario: dict[str, Any], baselines: bool = False, seeds: tuple[int, ...] = SEEDS
) -> dict[str, Any]:
    """Simulate with every seed; return what the tables and the picture need, with all that was set."""
    results = list(pool().map(partial(simulate_seed, settings, scenario, baselines), seeds))
    entry: dict[str, Any] = {"settings": settings, "scenario": scenario, "seeds": list(seeds)}
    entry |= {name: spread_of(result["final"]["test"][name] for result in results) for name in ("accuracy", "f1")}
    for name in ("centralised", "local_only"):
        if baselines:
            entry[name] = spread_of(result["baselines"][name]["accuracy"] for result in results)
    entry["rounds_closed"] = [len(result["rounds"]) for result in results]
    entry["counts"] = {
        k: sum(result["final"]["counts"][k] for result in results) for k in results[0]["final"]["counts"]
    }
    entry["virtual_seconds"] = spread_of(result["final"]["virtual_seconds"] for result in results)
    entry |= {name: statistics.fmean(result[name] for result in results) for name in ("seconds", "cpu_seconds")}
    curves = [[row["test"]["accuracy"] for row in result["rounds"]] for result in results]
    entry["curve"] = [round(statistics.fmean(column), 5) for column in zip(*curves, strict=False)]
    times = [[row["virtual_seconds"] for row in result["rounds"]] for result in results]
    entry["curve_seconds"] = [round(statistics.fmean(column), 3) for column in zip(*times, strict=False)]
    return entry


def skew() -> dict[str, Any]:
    """Federated beside centralised and local-only, the more unlike the nodes are."""
    entries = {}
    for data, model, partition in product(DATA, SHORT, report.PARTITIONS):
        settings, rounds, seeds = SHORT[model]
        scenario = {"data": data, "nodes": 10, "rounds": rounds, "partition": partition}
        entries[f"{data} {model} {partition}"] = runs(settings, scenario, baselines=True, seeds=seeds)
    return entries


def long_rounds() -> dict[str, Any]:
    """The most unlike nodes once more, with as much training for each node in fewer and longer rounds."""
    return {
        f"{data}: {name}": runs(
            settings,
            {"data": data, "nodes": 10, "rounds": LONG_ROUNDS, "partition": "dirichlet:0.1"},
            baselines=True,
        )
        for data, (name, settings) in product(DATA, LONG.items())
    }


def rule() -> dict[str, Any]:
    """The simulated sensors' rule: an OR, which no linear model can hold."""
    scenario = {"data": "sensors", "nodes": 10, "rounds": 30}
    return {model: runs(MODELS[model], scenario, baselines=True) for model in MODELS}


def scaling() -> dict[str, Any]:
    """Two nodes whose temperatures lie 15 °C apart: who computes the features' scale?"""
    scenario = {"data": "sensors", "nodes": 2, "rounds": 30, "partition": "shift:15"}
    return {how: runs(MLP, scenario | {"scaling": how}) for how in ("shared", "local", "none")}


def attacks() -> dict[str, Any]:
    """Three of ten nodes send their step reversed and four times as long."""
    scenario: dict[str, Any] = {"data": "breast_cancer", "nodes": 10, "rounds": 30, "attackers": 3}
    entries = {}
    for name, options in HOSTILE.items():
        settings = LOGISTIC | {"strategy": name, "strategy_options": options}
        entries[name] = runs(settings, scenario) | {"without": runs(settings, scenario | {"attackers": 0})["accuracy"]}
    bulyan = LOGISTIC | {"strategy": "Bulyan", "strategy_options": BULYAN}
    entries["Bulyan, 15 nodes"] = runs(bulyan, scenario | {"nodes": 15})
    entries["Bulyan, 15 nodes"]["without"] = runs(bulyan, scenario | {"nodes": 15, "attackers": 0})["accuracy"]
    failed = simulate(Settings(**bulyan), Scenario(**scenario | {"rounds": 1}))["rounds"][0]["failed"]
    return entries | {"Bulyan, 10 nodes": {"failed": failed}}


def flower() -> dict[str, Any]:
    """The same updates through Flower's own strategy, with no code of this project between, in every round."""
    return {name: beside_flower(name, options) for name, options in FLOWER.items()}


def flower_alone(name: str, options: dict[str, Any]) -> Callable[[GlobalModel, list[ModelUpdate]], dict[str, Any]]:
    """Return what merges a round's updates, as read from JSON, by Flower's strategy and messages alone."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import strategy as strategies

    quiet = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1, "fraction_evaluate": 0.0}
    strategy = getattr(strategies, name)(**options, **quiet)

    def merge(opened: GlobalModel, updates: list[ModelUpdate]) -> dict[str, Any]:
        now = ArrayRecord({key: Array(array) for key, array in opened.arrays.items()})
        grid = SimpleNamespace(get_node_ids=lambda: list(range(1, len(updates) + 1)))
        strategy.configure_train(opened.round, now, ConfigRecord(), grid)
        replies = []
        for i, update in enumerate(updates, start=1):
            arrays = {name: Array(array) for name, array in update.arrays.items()}
            metrics = MetricRecord({"num-examples": update.num_examples})
            content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
            replies.append(Message(content, reply_to=Message(RecordDict(), i, "train")))
        merged, _ = strategy.aggregate_train(opened.round, replies)
        return {key: array.numpy() for key, array in merged.items()}

    return merge


def beside_flower(name: str, options: dict[str, Any], rounds: int = 10) -> dict[str, Any]:
    """Return the largest difference to Flower's arrays, and in how many rounds ten orders of arrival gave one hash."""
    difference, same, closed = 0.0, 0, 0
    for seed in SEEDS:
        text = ",".join(f"{key}={value}" for key, value in options.items())
        settings = Settings(**LOGISTIC, strategy=name, strategy_options=text, seed=seed)
        data = spread(load("breast_cancer"), 10, "dirichlet:0.5", seed)
        world = World(settings, Scenario(nodes=10), data, make_model("logistic", {}, 30), np.random.RandomState(seed))
        latest: dict[str, NodeWeight] = {}
        federation = Federation(new_run("bench", settings, features=30), settings, world.model, latest)
        theirs, nodes = flower_alone(name, options), world.nodes()
        for node in nodes:
            latest[node.name] = world.running(node)
            federation.hear(latest[node.name])
        federation.settle(0)
        for now in range(1, rounds + 1):
            opened, saved = federation.run.opened.model, encode(federation.run)
            assert opened
            updates = [decode(ModelUpdate, encode(world.answer(node, opened, now))) for node in nodes]
            expected = theirs(opened, updates)
            hashes = set()
            for _ in range(10):
                federation = Federation(decode(RunState, saved), settings, world.model, latest)
                for i in world.random.permutation(len(updates)):
                    federation.receive(updates[i])
                    federation.settle(now)
                merged = federation.run.opened.arrays
                hashes.add(hashlib.sha256(b"".join(a.tobytes() for a in merged.values())).hexdigest())
            difference = max(difference, *(np.abs(merged[key] - expected[key]).max() for key in expected))
            same, closed = same + (len(hashes) == 1), closed + (federation.run.opened.number == opened.round + 1)
    return {"options": options, "max_difference": float(difference), "rounds": closed, "rounds_of_one_hash": same}


def failures() -> dict[str, Any]:
    """Slow nodes with and without waiting for them, and nodes that say nothing."""
    slow = {"data": "breast_cancer", "nodes": 10, "rounds": 30, "stragglers": 3}
    silent = {"data": "breast_cancer", "nodes": 3, "rounds": 30, "dropout": 1 / 3}
    return {
        "3 of 10 nodes slow, sync": runs(LOGISTIC, slow),
        "3 of 10 nodes slow, async": runs(LOGISTIC | {"round_mode": "async", "async_buffer": 7}, slow),
        "1 of 3 nodes silent (on average)": runs(LOGISTIC, silent),
    }


def size() -> dict[str, Any]:
    """A hundred nodes in one process."""
    scenario = {"data": "sensors", "nodes": 100, "rounds": 20, "partition": "dirichlet:0.1"}
    return {model: runs(settings, scenario, seeds=SEEDS[:1]) for model, settings in MODELS.items()}


def merging() -> dict[str, Any]:
    """Return what the nodes' messages of one round cost the cloud's own code, without Kafka and Spark."""
    return {str(nodes): merge_round(nodes) for nodes in (10, 100, 1000, 3000)}


def merge_round(nodes: int) -> dict[str, Any]:
    """Return the cost of a running weight, of an update, and of keeping the state, with that many nodes."""
    settings, model = Settings(model="mlp"), make_model("mlp", {})
    rounds = aggregator.Rounds(settings, model, "bench")
    weights = [NodeWeight(f"fog-{n}", 0.5, 1000, 0, (70_000.0, 50.0), (5e6, 3.0)) for n in range(nodes)]

    def take_in(messages: Sequence[NodeWeight], value: dict[str, Any]) -> tuple[float, Any]:
        values = [encode(message) for message in messages]
        started = time.process_time()
        taken = aggregator.take_in(map(record, range(nodes), values), value, rounds, 1)
        assert not taken.rejected
        return 1e6 * (time.process_time() - started) / nodes, taken

    def record(offset: int, value: bytes) -> Any:
        return SimpleNamespace(topic=MODEL_WEIGHTS, partition=0, offset=offset, value=value)

    weight_us, taken = take_in(weights, aggregator.INITIAL)
    state = taken.outcome()
    measured = score(np.full((100, 2), 0.5), np.arange(100) % 2)
    learned = {"arrays": state.opened.arrays, "score": measured}
    updates = [model_update(weight, state.opened, 1, 100, **learned) for weight in weights]
    update_us, taken = take_in(updates, msgspec.to_builtins(state, str_keys=True))
    started = time.process_time()
    outcome = taken.outcome()
    kept = json.dumps(msgspec.to_builtins(outcome, str_keys=True))
    assert outcome.opened.round == state.opened.round + 1
    found = {"weight_us": weight_us, "update_us": update_us}
    found |= {"state_ms": 1000 * (time.process_time() - started), "state_bytes": len(kept)}
    return found | {"update_bytes": len(encode(updates[0])), "model_bytes": len(encode(outcome.opened))}


OFFLINE: dict[str, Callable[[], dict[str, Any]]] = {
    each.__name__: each for each in (skew, long_rounds, rule, scaling, attacks, flower, failures, size, merging)
}


def machine() -> dict[str, Any]:
    """Return what the figures depend on beside the code."""
    packages = {name: version(name) for name in ("flwr", "numpy", "scikit-learn")}
    return {"cores": os.cpu_count(), "python": platform.python_version()} | packages


def keep(key: str, section: dict[str, Any]) -> None:
    """Put a section into docs/federated.json beside what is there, and make table and picture anew."""
    path = DOCS / "federated.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results = {name: results[name] for name in report.SECTIONS if name in results}  # without those of other days
    results[key] = section | {"machine": machine()}
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    (DOCS / "federated.md").write_text(report.markdown(results))
    report.picture(results, DOCS / "federated.png")


@click.command(help=command_help(__doc__))
@click.option("--offline", is_flag=True, help="Only what needs no Kafka and no Spark.")
@click.option("--stream", is_flag=True, help="Only what runs on a real stack, which this starts on the runner STACK.")
@click.option("--part", "parts", multiple=True, type=click.Choice(list(streamed.PARTS)), help="Of --stream: this only.")
@click.option("--only", multiple=True, type=click.Choice(list(OFFLINE)), help="Of --offline: this only.")
def main(offline: bool, stream: bool, parts: tuple[str, ...], only: tuple[str, ...]) -> None:
    """Measure, and write docs/federated.json, .md and .png."""
    for part in (parts or streamed.PARTS) if stream or not offline else ():
        started, key = time.perf_counter(), f"streamed {RUNNER}"
        known = json.loads((DOCS / "federated.json").read_text()).get(key, {})
        keep(key, known | {part: streamed.measure(part)})
        click.echo(f"{part}: {time.perf_counter() - started:.0f} s", err=True)
    for key in (only or OFFLINE) if offline or not stream else ():
        started = time.perf_counter()
        keep(key, OFFLINE[key]())
        click.echo(f"{key}: {time.perf_counter() - started:.0f} s", err=True)


if __name__ == "__main__":
    main()
