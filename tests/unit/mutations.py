"""Messages made odd: from valid ones, by a seed, as fast as it goes."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

NUMBERS = (
    *(
        0,
        -1,
        1,
        2,
        3,
        7,
        255,
        10**6,
        10**9,
        10**12,
        10**14,
        10**15,
        2**31,
        2**53,
        2**62,
        2**63 - 1,
        2**63,
        2**64,
        10**400,
    ),
    *(0.0, -0.0, 0.5, 1.5, -1e9, 1e9, 1e149, 1e150, 1e200, 1e300, -1e300, 1.7e308, 5e-324, 1e-300, 1e-9),
    *(float("nan"), float("inf"), float("-inf")),  # as Python writes them; JSON does not have them
)
TEXTS = (
    *("", " ", "x", "fog-1", "fog-2", "fog-99", "fog-[/x]", "[bold]", ":smile:", "{}", "%s", "\n", "\t", "a\nb"),
    *(
        "\x1b]52;c;eA==\x07",
        "\x1b[2J",
        "\x9b31m",
        "\x7f",
        "\u202eabc",
        "\u2028",
        "\u200b",
        "\ufeff",
        "\ud800",
        "\udfff",
    ),
    *(
        "é",
        "f\u043eg-1",
        "🙂",
        "x" * 201,
        "y" * 5000,
        "this:s",
        "unittest.__main__:x",
        "FedAdam",
        "mlp",
        "logistic",
        "async",
    ),
    *("eta=0.1", "sync", "../..", "NaN", "null", "1e999", "DifferentialPrivacyServerSideFixedClipping"),
)
RAW = (  # what no encoder of Python writes
    *(b"1e999", b"-1e999", b"1e-999", b"00", b"1.", b".5", b"+1", b"0x1", b"1_0", b"'a'", b"True", b"nul", b"}", b"]"),
    *(b"[" * 2000, b'{"a":' * 1500, b"9" * 5000, b'"\\ud800"', b'"\\u0000"', b'"\xff"', b'"\xed\xa0\x80"', b"/**/1"),
)
SHAPES = (  # and how many values
    *(([], 1), ([0], 0), ([1], 1), ([2, 1], 2), ([1, 1, 1], 1), ([1] * 8, 1), ([1] * 65, 1), ([1] * 500, 1)),
    *(([0, 2**62], 0), ([2**62, 0, 2], 0), ([2**32, 2**32], 0), ([2**63 - 1], 1), ([1, 3], 3), ([300], 300)),
)
AT_RAW = "@raw@"  # stands in a text for one of them
KEYS = (
    *("node_id", "weight", "samples", "sums", "squares", "round", "run_id", "arrays", "metrics", "version", "shape"),
    *("values", "name", "dtype", "confusion", "loss_sum", "command", "model", "sent_at", "scaler", "mean", "std"),
    *("config", "learning-rate-factor", "proximal-mu", "participants", "strategy_state", "class", "counts", "updates"),
    *("place", "staleness", "failed", "restored_from", "opened_at", "trained_at", "num_examples", "base_version"),
    *(
        "source",
        "global_weight",
        "node_metrics",
        "kind",
        "detail",
        "action",
        "n",
        "square",
        "\x1b[1m",
        "\ud800",
        "",
        "@",
    ),
)


def odd(random: Random) -> Any:
    """Return a value that stands in for another."""
    match random.randrange(12):
        case 0 | 1 | 2:
            return random.choice(NUMBERS)
        case 3 | 4:
            return random.choice(TEXTS)
        case 5:
            return random.choice((True, False, None))
        case 6:
            return random.choice(([], {}, [[]], [{}], [None], {"a": 1}))
        case 7:
            return [random.choice(NUMBERS) for _ in range(random.choice((1, 2, 3, 65, 300)))]
        case 8 | 9:
            return AT_RAW
        case 10:
            return {random.choice(KEYS): random.choice(NUMBERS), random.choice(TEXTS): random.choice(TEXTS)}
        case _:
            return random.choice(NUMBERS[:12]) * random.choice((1, -1))


def place(value: Any, random: Random) -> tuple[Any, Any] | None:
    """Return a container and one of its keys or indices; a field at the top is as likely as one deep inside."""
    found = None
    while isinstance(value, (dict, list)) and value and (found is None or random.random() < 0.7):
        key = random.choice(list(value)) if isinstance(value, dict) else random.randrange(len(value))
        found = value, key
        value = value[key]
    return found


def like(value: Any, random: Random) -> Any:
    """Return a value of the same kind from far away: such a message passes the types."""
    if isinstance(value, (bool, type(None), list, dict)):
        return odd(random)
    kind = str if isinstance(value, str) else int if isinstance(value, int) else float
    return random.choice([each for each in (TEXTS if kind is str else NUMBERS) if type(each) is kind])


def reshape(message: Any, random: Random) -> None:
    """Give one of a message's arrays another shape, mostly with as many values as it holds."""
    inner = message.get("model")
    arrays = (inner if isinstance(inner, dict) else message).get("arrays")
    if isinstance(arrays, list) and arrays and isinstance(arrays[-1], dict):
        shape, count = random.choice(SHAPES)
        arrays[random.randrange(len(arrays))] = arrays[-1] | {"shape": shape, "values": [0.5] * count}


def nudge(value: Any, random: Random) -> Any:
    """Return a value near to one, of the same kind: such a message gets farthest."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + random.choice((-1, 1, 1, 2, 1000))
    if isinstance(value, float):
        return value * random.choice((-1, 0, 1.01, 2, 1e6, 1e100)) + random.choice((0, 0.1, 1))
    if isinstance(value, str):
        return random.choice((value + "x", value[:-1], value.upper(), value + "\x1b[0m", value * 50))
    if isinstance(value, list):
        return random.choice((value[:-1], value + value[-1:], value * 2, value[::-1], [value]))
    if isinstance(value, dict):
        return dict(reversed(value.items()))
    return odd(random)


def edit(message: Any, donors: list[Any], random: Random) -> Any:
    """Change one thing of a message in place, or return another one."""
    found = place(message, random)
    if found is None:
        return odd(random)
    holder, key = found
    match random.randrange(13):
        case 12 if isinstance(message, dict):
            reshape(message, random)
        case 0 | 1:
            holder[key] = odd(random)
        case 2 | 10 | 11:
            holder[key] = like(holder[key], random)
        case 3 | 4 | 5:
            holder[key] = nudge(holder[key], random)
        case 6:
            del holder[key]
        case 7:
            if isinstance(holder, dict):  # rename, double or add
                name = random.choice(KEYS)
                holder[name] = holder.pop(key) if random.random() < 0.5 else deepcopy(holder[key])
            else:
                holder.insert(key, deepcopy(holder[key]))
        case 8:
            other, name = place(random.choice(donors), random) or found
            holder[key] = deepcopy(other[name])
        case _:
            holder[key] = {key: holder[key]} if random.random() < 0.5 else [holder[key]]
    return message


def written(message: Any, random: Random) -> bytes:
    """Return a message as bytes: JSON, more or less."""
    text = json.dumps(message, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    while (mark := json.dumps(AT_RAW).encode()) in text:
        text = text.replace(mark, random.choice(RAW), 1)
    return text


def spoiled(value: bytes, random: Random) -> bytes | None:
    """Return bytes that are cut off, mixed up or no message at all."""
    at = random.randrange(len(value) + 1)
    match random.randrange(8):
        case 0 | 1:
            return value[:at]
        case 2:
            return value[:at] + bytes([random.randrange(256)]) + value[at + 1 :]
        case 3:
            return value[:at] + random.choice(RAW) + value[at:]
        case 4:
            return random.randbytes(random.randrange(40))
        case 5:
            return random.choice(
                (None, b"", b"null", b"[]", b"{}", b"0", b'""', b"\x00", b"\xff\xfe", b"test", b"{" * 99)
            )
        case 6:
            first, comma, rest = value.partition(b",")
            return first + comma + first.lstrip(b"{") + comma + rest  # a field that is there twice
        case _:
            return value + value


def mutated(value: bytes, donors: list[Any], random: Random) -> bytes | None:
    """Return a message with nothing, one or some things changed; parts of `donors`, other messages, may come in."""
    changed = json.loads(value)
    for _ in range(random.choice((0, 1, 1, 1, 1, 2, 3, 8))):
        changed = edit(changed, donors, random)
    found = written(changed, random)
    return spoiled(found, random) if random.random() < 0.1 else found
