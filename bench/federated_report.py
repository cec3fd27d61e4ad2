"""Table and picture of docs/federated.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import streamed

COMMAND = "make federated"
COMPARED = ("federated", "centralised", "local only", "points to centralised")
PARTITIONS = ("iid", "dirichlet:0.5", "dirichlet:0.1")


def markdown(results: Mapping[str, Any]) -> str:
    """Return docs/federated.md; a section without figures yet is left out."""
    parts = [
        "# How well the federation learns\n\n"
        f"Made by `{COMMAND}` from `docs/federated.json`; do not edit. Accuracy is that on held-out rows (25 %, "
        "stratified): mean over the seeds ± standard deviation; a seed is also another split. A row held out of "
        "breast_cancer is 0.7 points, one of digits 0.2. Settings were chosen with the seeds 1 to 5, which give other "
        "splits than those measured here. All rounds run through the cloud's own code, every message through its JSON "
        "form.\n\n![](federated.png)\n"
    ]
    parts += [make(results[key]) + _made_with(results[key]) for key, make in SECTIONS.items() if key in results]
    return "\n".join(parts)


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(headings), *map(list, rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(lines[0]) - 1))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _value(figures: Mapping[str, float]) -> str:
    return f"{figures['mean']:.4f} ± {figures['std']:.4f}"


def _entries(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in section.items() if key != "machine"}


def _made_with(section: Mapping[str, Any]) -> str:
    machine = section["machine"]
    shown = ", ".join(f"{name} {machine[name]}" for name in ("python", "flwr", "numpy", "scikit-learn"))
    text = f"\n{machine['cores']} cores; {shown}"
    made: dict[str, list[list[str]]] = {}
    names = {"local_epochs": "local epochs", "learning_rate": "learning rate", "train_batch_size": "batch size"}
    for entry in (each for each in _entries(section).values() if "settings" in each):
        parts = [f"{entry['scenario']['rounds']} rounds"]
        parts += [f"{words} {entry['settings'][name]}" for name, words in names.items()]
        parts.append(f"seeds {entry['seeds'][0]} to {entry['seeds'][-1]}")
        name = f"{entry['settings']['model']} {entry['settings'].get('model_options', '')}".strip()
        made.setdefault(name, []).append(parts)
    for name, (first, *others) in made.items():
        text += f"; {name}: {', '.join(part for part in first if all(part in other for other in others))}"
    return text + ".\n"


def _skew(section: Mapping[str, Any]) -> str:
    rows = [_compared(key, entry) for key, entry in sorted(_entries(section).items(), key=_skew_order)]
    return (
        "## Unlike nodes\n\n10 nodes. Centralised: one machine has all rows. Local only: each node alone.\n\n"
        + _table(("data", "model", "partition", *COMPARED), rows)
    )


def _compared(key: str, entry: Mapping[str, Any]) -> list[str]:
    return [*key.split(), *(_value(entry[name]) for name in ("accuracy", "centralised", "local_only")), _gap(entry)]


def _gap(entry: Mapping[str, Any]) -> str:
    return f"{100 * (entry['accuracy']['mean'] - entry['centralised']['mean']):+.2f}"


def _skew_order(item: tuple[str, Any]) -> tuple[str, str, int]:
    data, model, partition = item[0].split()
    return data, model, PARTITIONS.index(partition)


def _long_rounds(section: Mapping[str, Any]) -> str:
    rows = [
        [*key.split(": "), *(_value(entry[name]) for name in ("accuracy", "centralised")), _gap(entry)]
        for key, entry in _entries(section).items()
    ]
    return (
        "## What long rounds cost\n\nThe most unlike nodes (dirichlet:0.1) again, with fewer and longer rounds: "
        "between two of them a node with few classes walks away from the others. Logistic regression loses little, an "
        "MLP more, and with Adam most: it starts afresh in each round, and its first steps are as long whatever the "
        "slope.\n\n" + _table(("data", "model", "federated", "centralised", "points to centralised"), rows)
    )


def _rule(section: Mapping[str, Any]) -> str:
    rows = [
        (key, _value(entry["accuracy"]), _value(entry["centralised"]), _value(entry["f1"]))
        for key, entry in _entries(section).items()
    ]
    return (
        "## The sensors' rule\n\nTrouble is `temperature > 85 or vibration > 0.08`: an OR, which no straight line "
        "separates, so a linear model is capped.\n\n"
        + _table(("model", "federated", "centralised", "F1, federated"), rows)
    )


def _scaling(section: Mapping[str, Any]) -> str:
    meaning = {
        "shared": "mean and deviation of all nodes' readings",
        "local": "each node its own",
        "none": "raw °C and g",
    }
    rows = [(key, text, _value(section[key]["accuracy"])) for key, text in meaning.items()]
    return "## Scaling\n\nTwo nodes, the second measures 15 °C more; mlp.\n\n" + _table(
        ("scaling", "of", "accuracy"), rows
    )


def _attacks(section: Mapping[str, Any]) -> str:
    rows = [
        [
            key,
            entry["settings"]["strategy_options"].replace(",", ", "),
            *map(_value, (entry["without"], entry["accuracy"])),
        ]
        for key, entry in _entries(section).items()
        if "accuracy" in entry
    ]
    return (
        "## Attackers\n\nbreast_cancer, logistic, 10 nodes; three of them reverse their step and make it four times "
        "as long.\n\n"
        + _table(("strategy", "options", "no attacker", "3 attackers"), rows)
        + f"\nWith 10 nodes, the round stays as it was and says why: *{section['Bulyan, 10 nodes']['failed']}*\n"
    )


def _flower(section: Mapping[str, Any]) -> str:
    rows = [
        (key, f"{entry['max_difference']:.1e}", str(entry["rounds"]), str(entry["rounds_of_one_hash"]))
        for key, entry in _entries(section).items()
    ]
    return (
        "## Beside Flower\n\nEach round's updates (breast_cancer, logistic, 10 nodes, dirichlet:0.5) also go to "
        "Flower's own strategy object, with no code of this project between. Flower's simulation engine needs "
        "`ray`, which is no dependency of this project; its strategy classes are the reference. Last "
        "column: ten random orders of arrival gave arrays of one SHA-256.\n\n"
        + _table(("strategy", "largest difference", "rounds", "rounds of one hash"), rows)
    )


def _failures(section: Mapping[str, Any]) -> str:
    rows = []
    for key, entry in _entries(section).items():
        closed = f"{sum(entry['rounds_closed'])} of {len(entry['seeds']) * entry['scenario']['rounds']}"
        counts = ", ".join(f"{kind} {count}" for kind, count in entry["counts"].items() if count)
        rows.append((key, _value(entry["accuracy"]), f"{entry['virtual_seconds']['mean']:.0f} s", closed, counts))
    return (
        "## Slow and silent nodes\n\nbreast_cancer, logistic. Time is virtual: a node trains for 1 s, a slow one for "
        "15 s, and a round's deadline is 10 s; async makes a version of every 7 updates.\n\n"
        + _table(("", "accuracy", "virtual time", "rounds closed", "updates"), rows)
    )


def _size(section: Mapping[str, Any]) -> str:
    rows = [
        (key, _value(entry["accuracy"]), f"{entry['seconds']:.0f} s", f"{entry['cpu_seconds']:.0f} s")
        for key, entry in _entries(section).items()
    ]
    return (
        "## A hundred nodes\n\nSimulated readings, dirichlet:0.1, one process; real time of a run, which depends on "
        "what else the machine does, and processor time.\n\n"
        + _table(("model", "accuracy", "time", "processor time"), rows)
    )


def _merging(section: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{int(nodes):,}",
            f"{entry['weight_us']:.0f} µs",
            f"{entry['update_us']:.0f} µs",
            f"{entry['state_ms']:.1f} ms",
        ]
        + [f"{entry[name] / 1000:,.1f} kB" for name in ("state_bytes", "update_bytes", "model_bytes")]
        for nodes, entry in sorted(_entries(section).items(), key=lambda item: int(item[0]))
    ]
    headings = ("nodes", "a running weight", "an update", "writing the state", "state", "update", "global model")
    return (
        "## What the nodes' messages cost the cloud\n\nProcessor time of the cloud's own code for the messages of a "
        "round with the default model, and sizes; without Kafka and Spark, one run.\n\n" + _table(headings, rows)
    )


SECTIONS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    **{f"streamed {runner}": partial(streamed.table, runner=runner) for runner in ("local", "docker")},
    "skew": _skew,
    "long_rounds": _long_rounds,
    "rule": _rule,
    "scaling": _scaling,
    "attacks": _attacks,
    "flower": _flower,
    "failures": _failures,
    "size": _size,
    "merging": _merging,
}


def picture(results: Mapping[str, Any], path: Path) -> None:
    """Draw what there is of four panels: unlike nodes, attackers, scaling, slow nodes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(12, 8.4), layout="constrained")
    for (key, draw), panel in zip(PANELS.items(), panels.flat, strict=True):
        if key in results:
            draw(panel, results[key])
            panel.grid(alpha=0.3)
            panel.set_ylabel("test accuracy")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_skew(panel: Any, section: Mapping[str, Any]) -> None:
    keys = [(data, part) for data in ("breast_cancer", "digits") for part in PARTITIONS]
    entries = [section[f"{data} logistic {part}"] for data, part in keys]
    for i, (name, label) in enumerate(
        (("centralised", "centralised"), ("accuracy", "federated"), ("local_only", "each node alone"))
    ):
        heights, errors = ([entry[name][each] for entry in entries] for each in ("mean", "std"))
        panel.bar([x + 0.27 * (i - 1) for x in range(len(keys))], heights, 0.25, yerr=errors, capsize=2, label=label)
    panel.set_xticks(range(len(keys)), [f"{data}\n{part}" for data, part in keys], fontsize=7.5)
    panel.set_ylim(0, 1.25)
    panel.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    panel.legend(ncols=3, loc="upper center")
    panel.set_title("10 unlike nodes, logistic regression")


def _lines(panel: Any, entries: Mapping[str, Any], x: str | None = None) -> None:
    for (label, entry), style in zip(entries.items(), ("-", "--", "-.", ":", "-", "--"), strict=False):
        places = entry[x] if x else range(1, len(entry["curve"]) + 1)
        panel.plot(places, entry["curve"], style, label=label, linewidth=1.8)
    panel.set_ylim(-0.02, 1.04)


def _draw_attacks(panel: Any, section: Mapping[str, Any]) -> None:
    _lines(panel, {key: entry for key, entry in _entries(section).items() if "curve" in entry})
    panel.set_title("3 attackers (sign-flip × 4), breast_cancer")
    panel.set_xlabel("round")
    panel.legend(fontsize=8, loc="center right")


def _draw_scaling(panel: Any, section: Mapping[str, Any]) -> None:
    names = {"shared": "shared by both nodes", "local": "each node its own", "none": "no scaling"}
    _lines(panel, {names[key]: section[key] for key in names})
    panel.set_title("2 nodes whose temperatures lie 15 °C apart, mlp")
    panel.set_xlabel("round")
    panel.legend(loc="lower right")


def _draw_failures(panel: Any, section: Mapping[str, Any]) -> None:
    _lines(panel, {key: entry for key, entry in _entries(section).items() if "slow" in key}, "curve_seconds")
    panel.set_ylim(0.85, 1)
    panel.set_xscale("log")
    panel.set_title("Waiting for slow nodes, or not: breast_cancer")
    panel.set_xlabel("virtual seconds (log)")
    panel.legend(loc="lower right")


PANELS = {"skew": _draw_skew, "attacks": _draw_attacks, "scaling": _draw_scaling, "failures": _draw_failures}
