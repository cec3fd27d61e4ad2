"""The global model as column expressions, so that Spark scores readings without Python.

The weights are no part of the expressions: they come in as a column, and another version's without a new query.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from msgspec.structs import replace
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from fedstream.errors import BadMessage
from fedstream.features import Feature
from fedstream.learning.arrays import layout
from fedstream.learning.training import Scaler
from fedstream.messages.rounds import GlobalModel, check_scaler, in_order

Layout = dict[str, tuple[int, ...]]

LARGEST_MODEL = 2000  # weights: Java's limit of a method's length comes soon after, and then Spark interprets
MOST_LAYERS = 20  # each is a step of Spark's plan; hundreds overflow its stack


def scoring_message(model: GlobalModel) -> dict[str, Any]:
    """Return what scoring needs of a `scorable` model: names and plain lists of numbers."""
    assert model.scaler is not None
    return {
        "run_id": model.run_id,
        "version": model.version,
        "model": model.model,
        "mean": list(model.scaler.mean),
        "std": list(model.scaler.std),
        "arrays": {name: array.ravel().tolist() for name, array in model.arrays.items()},
    }


def scoring_layout(model: GlobalModel, features: int) -> Layout:
    """Return the layout that a query is made for; with another one the query must be made anew.

    Raises:
        BadMessage: the model is neither a logistic regression nor an MLP of the readings' features and two classes, is
            too large, or its scaler is of another number of features.
    """
    found = layout(model.arrays)
    expected: Layout = {}
    if model.model == "logistic":
        expected = {"coef": (1, features), "intercept": (1,)}
    elif model.model == "mlp":
        units = [prod(found.get(f"intercepts_{i}", ())) for i in range(len(found) // 2)]
        for i, (inputs, outputs) in enumerate(pairwise([features, *units[:-1], 1])):
            expected |= {f"coefs_{i}": (inputs, outputs), f"intercepts_{i}": (outputs,)}
    size = sum(array.size for array in model.arrays.values())
    if not expected or found != expected or size > LARGEST_MODEL or len(expected) > 2 * MOST_LAYERS:
        msg = (
            f"MODEL is {model.model!r:.100} with {size} weights in arrays {found!s:.200}; alerts take logistic or mlp "
            f"of {features} features for two classes, with at most {LARGEST_MODEL} weights in {MOST_LAYERS} layers"
        )
        raise BadMessage(msg)
    check_scaler(model.scaler, features)
    return expected


def scorable(model: GlobalModel, table: Sequence[Feature]) -> GlobalModel:
    """Return a model with its arrays in the order of the layout, and with a scaler.

    Raises:
        BadMessage: as `scoring_layout`, or its numbers are so large that a reading would have no probability.
    """
    features = len(table)
    ordered = in_order(model.named_arrays, scoring_layout(model, features))
    scaler = model.scaler or Scaler((0.0,) * features, (1.0,) * features)
    # The largest that any reading can make of each layer's outputs.
    limits = scaler.apply(np.array([[each.low for each in table], [each.high for each in table]]))
    largest, arrays = np.abs(limits).max(axis=0), [np.abs(each.array) for each in ordered]
    with np.errstate(over="ignore", invalid="ignore"):
        for coefs, intercepts in zip(arrays[::2], arrays[1::2], strict=True):
            largest = largest @ (coefs.T if model.model == "logistic" else coefs) + intercepts
    if not np.isfinite(largest).all():
        raise BadMessage("the model's numbers overflow for some reading; expected a probability for each")
    return replace(model, named_arrays=ordered, scaler=scaler)


def scoring_ddl(layout: Layout) -> str:
    """Return the schema of scoring messages for one layout."""
    arrays = ", ".join(f"{name}: ARRAY<DOUBLE>" for name in layout)
    return (
        f"run_id STRING, version BIGINT, model STRING, mean ARRAY<DOUBLE>, std ARRAY<DOUBLE>, arrays STRUCT<{arrays}>"
    )


def with_probability(readings: DataFrame, layout: Layout, features: Sequence[str], served: str = "served") -> DataFrame:
    """Add `probability` of class 1, from feature columns and the column `served`, a struct as in `scoring_ddl`.

    Equal to `Model.predict` on scaled features: a layer is max(0, x W + b), the last one 1 / (1 + exp(-(x W + b))).
    """
    model = F.col(served)
    x: list[Column] = [(F.col(name) - model["mean"][i]) / model["std"][i] for i, name in enumerate(features)]
    names = list(layout)
    for depth, (coefs, intercepts) in enumerate(zip(names[::2], names[1::2], strict=True)):
        weights, bias = model["arrays"][coefs], model["arrays"][intercepts]
        is_last = depth == len(names) // 2 - 1
        rows, columns = layout[coefs] if coefs != "coef" else layout[coefs][::-1]  # coef is (outputs, inputs)
        readings = readings.withColumn("layer", F.array(*x))  # a stage of its own: inlined, it would grow exponentially
        units = []
        for j in range(columns):
            unit = bias[j]
            for i in range(rows):
                unit = unit + F.col("layer")[i] * weights[i * columns + j]
            units.append(unit if is_last else F.greatest(F.lit(0.0), unit))
        x = units
    margin = F.greatest(F.lit(-500.0), F.least(F.lit(500.0), x[0]))  # exp(710) overflows
    return readings.withColumn("probability", 1 / (1 + F.exp(-margin))).drop("layer")
