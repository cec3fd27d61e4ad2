"""A version of the global model as a file that is of use without this project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fedstream.errors import BadMessage, SettingError, StackError
from fedstream.learning.arrays import layout
from fedstream.learning.scores import Score
from fedstream.messages.rounds import GlobalModel, check_scaler
from fedstream.rounds.runs import GLOBAL
from fedstream.settings import Settings, parse_options

if TYPE_CHECKING:
    from fedstream.learning.models import Model


def as_json(message: GlobalModel, measured: Mapping[str, Score]) -> dict[str, Any]:
    """Return a version for use without this project: each array as lists of numbers, nested as in its shape.

    A reading x is scaled as (x - mean) / std first. The metrics are the version's own; null: not measured yet.
    """
    by_node: dict[str, Any] = {node: msgspec.to_builtins(score) for node, score in measured.items()}
    whole = by_node.pop(GLOBAL, None)
    positive = measured[GLOBAL].positive_class if GLOBAL in measured else None
    kept = ("run_id", "version", "round", "model", "strategy", "opened_at", "scaler")
    restored = {} if message.restored_from is None else {"restored_from": message.restored_from}
    return (
        {name: msgspec.to_builtins(getattr(message, name)) for name in kept}
        | restored
        | {
            "arrays": {name: array.tolist() for name, array in message.arrays.items()},
            "positive_class": positive,
            "metrics": whole,
            "node_metrics": by_node,
        }
    )


def model_of(message: GlobalModel, settings: Settings) -> Model:
    """Return the model of a version: a built-in one of the size its arrays tell, else the user's own.

    Raises:
        SettingError: the user's own is not that of MODEL, whose name alone may name code, or cannot be made with the
            present MODEL_OPTIONS.
        StackError: its arrays or scaler are not those of its model.
    """
    from fedstream.learning.models import make_model  # scikit-learn takes a second, and few commands need it

    name, arrays = message.model, message.arrays
    if name not in ("logistic", "mlp"):
        if name != settings.model:
            msg = f"MODEL {name!r:.100} of version {message.version} is not this stack's {settings.model!r}"
            raise SettingError(f"{msg}; set MODEL to the same, if you trust it")
        return make_model(name, parse_options("MODEL_OPTIONS", settings.model_options))
    try:
        if name == "logistic":
            options, (outputs, features) = {}, arrays["coef"].shape
        else:
            sizes = [arrays[f"coefs_{i}"].shape for i in range(len(arrays) // 2)]
            options = {"hidden_units": ",".join(str(units) for _, units in sizes[:-1])}
            features, outputs = sizes[0][0], sizes[-1][1]
        model = make_model(name, options, features, 2 if outputs == 1 else outputs)
        if layout(arrays) != layout(model.initial_arrays(0)):
            raise BadMessage(f"arrays {layout(arrays)!s:.200}")
        check_scaler(message.scaler, features)
    except (KeyError, IndexError, ValueError, SettingError) as error:
        msg = f"version {message.version} of run {message.run_id} is no {name} model ({error!s:.300})"
        raise StackError(f"{msg}; what the cloud sends is one: see who else writes to the topics") from error
    return model


def pipeline_of(message: GlobalModel, settings: Settings) -> Any:
    """Return a version as a fitted Pipeline of scikit-learn: the scaler, if there is one, and the classifier.

    Raises:
        StackError: it is a model of the user's own.
    """
    if message.model not in ("logistic", "mlp"):
        msg = f"model {message.model} is not one of scikit-learn's; export it with --format json"
        raise StackError(msg)
    import numpy as np
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    from fedstream.learning.models import Mlp

    model: Any = model_of(message, settings)
    arrays, steps = message.arrays, []
    if message.scaler:
        scaler = StandardScaler()
        scaler.mean_, scaler.scale_ = np.array(message.scaler.mean), np.array(message.scaler.std)
        # Of a version with the noise of differential privacy, which has no seed, nothing exact is told.
        scaler.var_, scaler.n_samples_seen_ = (
            scaler.scale_**2,
            (message.samples or 1) if message.seed is not None else 1,
        )
        scaler.n_features_in_ = model.features
        steps.append(("scaler", scaler))
    if isinstance(model, Mlp):
        classifier = model.network(arrays, 0).set_params(random_state=None, batch_size="auto")
    else:
        classifier, classes = (
            SGDClassifier(loss="log_loss", alpha=0.0, learning_rate="constant"),
            np.arange(model.classes),
        )
        classifier.partial_fit(np.zeros((model.classes, model.features)), classes, classes=classes)  # only to allocate
        classifier.coef_, classifier.intercept_ = arrays["coef"], arrays["intercept"]
    return Pipeline([*steps, ("model", classifier)])


def export(message: GlobalModel, measured: Mapping[str, Score], kind: str, path: Path, settings: Settings) -> None:
    """Write a version to a file: `json` (numbers and names only) or `skops` (scikit-learn without pickle).

    Of a version with the noise of differential privacy, which has no seed, nothing exact goes with it: no scores.

    Raises:
        StackError: the model has no such format, or the file cannot be written.
    """
    try:
        if kind == "json":
            found = as_json(message, {} if message.seed is None else measured)
            path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        else:
            pipeline = pipeline_of(message, settings)
            import skops.io

            skops.io.dump(pipeline, path)
    except OSError as error:
        raise StackError(f"cannot write {path}: {error.strerror}") from error
