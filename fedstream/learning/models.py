"""The models a node can train: logistic regression, a small neural network (MLP), or a class of the user's own."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from fedstream.errors import SettingError
from fedstream.learning.arrays import Arrays, Matrix
from fedstream.settings import Settings, parse_options

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier

Labels = npt.NDArray[np.int64]

_METHODS = ("initial_arrays", "fit", "predict")


class Model(Protocol):
    """What a model must offer. It keeps nothing between calls: all it has learned is in its arrays."""

    def initial_arrays(self, seed: int) -> Arrays:
        """Return the arrays before any training; a seed gives the same ones on every machine."""
        ...

    def fit(self, arrays: Arrays, x: Matrix, y: Labels, config: TrainConfig, seed: int) -> Arrays:
        """Return new arrays of the same layout, trained from `arrays` on x (n, features) and y (n,) in 0..classes-1.

        The arguments stay as they are, and the same arguments give the same bytes.
        """
        ...

    def predict(self, arrays: Arrays, x: Matrix) -> Matrix:
        """Return the probabilities (n, classes) of the classes for x (n, features); each row sums to 1."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """How a node trains in one round.

    `class_weight` is `none`, `balanced` (n / (classes present × readings of the class), as in scikit-learn) or a
    weight per class such as `0:1,1:5`, where a class without one counts 1. `proximal_mu` is the µ of FedProx.

    Raises:
        SettingError: class_weight is none of these.
    """

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 0.01
    class_weight: str = "none"
    proximal_mu: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a bad class weight at once, and not at the first reading."""
        self.sample_weight(np.zeros(0, dtype=np.int64), classes=2)

    def sample_weight(self, y: Labels, classes: int) -> Matrix | None:
        """Return the weight of each reading (n,), or None if all count the same."""
        if self.class_weight == "none":
            return None
        if self.class_weight == "balanced":
            counts = np.bincount(y, minlength=classes)
            weights = len(y) / (np.maximum(counts, 1) * max(np.count_nonzero(counts), 1))
        else:
            try:
                pairs = [pair.split(":") for pair in self.class_weight.split(",")]
                given = {int(label): float(weight) for label, weight in pairs}
            except ValueError:
                pairs, given = [], {-1: 0.0}
            if len(given) != len(pairs) or not all(c >= 0 and 0 < weight < math.inf for c, weight in given.items()):
                raise _refused("CLASS_WEIGHT", self.class_weight, "none, balanced or weights above 0 such as 0:1,1:5")
            weights = np.array([given.get(label, 1.0) for label in range(classes)])
        return np.asarray(weights[y])


@dataclass(frozen=True)
class Logistic:
    """Logistic regression by SGDClassifier: a step per row; of more than two classes, each against the rest.

    Chosen over MLPClassifier(()), softmax with Adam: as accurate in the federation, and several times as fast.
    """

    features: int = 2
    classes: int = 2

    def initial_arrays(self, seed: int) -> Arrays:
        """Return zeros, whatever the seed, as the loss is convex: coef (rows, features) and intercept (rows,)."""
        rows = 1 if self.classes == 2 else self.classes
        return {"coef": np.zeros((rows, self.features)), "intercept": np.zeros(rows)}

    def fit(self, arrays: Arrays, x: Matrix, y: Labels, config: TrainConfig, seed: int) -> Arrays:
        """See `Model.fit`; `batch_size` only tells how often the proximal term is applied."""
        from sklearn.linear_model import SGDClassifier  # here, since it takes a second that most programs can save

        rate, random = config.learning_rate, _random(seed)
        sgd = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=rate, alpha=0.0, random_state=random)
        sgd.coef_, sgd.intercept_ = arrays["coef"].copy(), arrays["intercept"].copy()
        return _train(sgd, lambda: {"coef": sgd.coef_, "intercept": sgd.intercept_}, arrays, x, y, config, self.classes)

    def predict(self, arrays: Arrays, x: Matrix) -> Matrix:
        """See `Model.predict`; more than two classes are normalised as in scikit-learn's predict_proba."""
        with np.errstate(over="ignore"):  # beyond every float: as sure as can be
            margins = x @ arrays["coef"].T + arrays["intercept"]
        positive = 1 / (1 + np.exp(-np.clip(margins, -500, 500)))  # exp(710) overflows, and 0/0 has no sum of 1
        return np.hstack([1 - positive, positive]) if self.classes == 2 else positive / positive.sum(1, keepdims=True)


@dataclass(frozen=True)
class Mlp:
    """A neural network with ReLU units by MLPClassifier, trained by `adam` or by plain gradient descent, `sgd`.

    Adam's state is no array: it starts afresh in each round, and its first steps are as long whatever the slope. Nodes
    that hold few classes then drift apart, where `sgd`, as in Reddi et al. 2021, algorithm 1, keeps them together.
    """

    features: int = 2
    classes: int = 2
    hidden_units: int | str = 16
    solver: str = "adam"

    def __post_init__(self) -> None:
        """Refuse bad options at once."""
        self._sizes()
        if self.solver not in ("adam", "sgd"):
            raise _refused("MODEL_OPTIONS", {"solver": self.solver}, "solver=adam or solver=sgd")

    def initial_arrays(self, seed: int) -> Arrays:
        """Return coefs_i (inputs, outputs), uniform as in Glorot and Bengio 2010, eq. 16, and intercepts_i of zeros."""
        random = _random(seed)
        arrays: Arrays = {}
        for i, (inputs, outputs) in enumerate(pairwise(self._sizes())):
            bound = math.sqrt(6 / (inputs + outputs))
            arrays[f"coefs_{i}"] = random.uniform(-bound, bound, (inputs, outputs))
            arrays[f"intercepts_{i}"] = np.zeros(outputs)
        return arrays

    def fit(self, arrays: Arrays, x: Matrix, y: Labels, config: TrainConfig, seed: int) -> Arrays:
        """See `Model.fit`; a step takes `batch_size` rows."""
        mlp = self.network(arrays, seed).set_params(learning_rate_init=config.learning_rate)

        def current() -> Arrays:
            layers = enumerate(zip(mlp.coefs_, mlp.intercepts_, strict=True))
            return {name: part for i, pair in layers for name, part in zip(_names(i), pair, strict=True)}

        return _train(mlp, current, arrays, x, y, config, self.classes)

    def predict(self, arrays: Arrays, x: Matrix) -> Matrix:
        """See `Model.predict`."""
        with np.errstate(over="ignore"):  # as in Logistic
            return np.asarray(self.network(arrays).predict_proba(x)) if len(x) else np.zeros((0, self.classes))

    def _sizes(self) -> list[int]:
        hidden = str(self.hidden_units).split(",")
        if not all(units.strip().isdecimal() and int(units) > 0 for units in hidden):
            wanted = 'hidden_units such as 16 or, for two layers, "32,16"'
            raise _refused("MODEL_OPTIONS", {"hidden_units": self.hidden_units}, wanted)
        return [self.features, *map(int, hidden), 1 if self.classes == 2 else self.classes]

    def network(self, arrays: Arrays, seed: int = 0) -> MLPClassifier:
        """Return scikit-learn's network with these arrays."""
        from sklearn.neural_network import MLPClassifier

        sizes, labels = self._sizes(), np.arange(self.classes)
        fixed = {"alpha": 0.0, "batch_size": 1, "momentum": 0.0}  # momentum would start afresh as Adam does
        mlp = MLPClassifier(sizes[1:-1], solver=self.solver, random_state=_random(seed), **fixed)
        mlp.partial_fit(np.zeros((self.classes, self.features)), labels, classes=labels)  # only to allocate
        del mlp._optimizer  # it remembers the line above; the next partial_fit makes a fresh one
        coefs, intercepts = zip(*map(_names, range(len(sizes) - 1)), strict=True)
        mlp.coefs_, mlp.intercepts_ = [arrays[c].copy() for c in coefs], [arrays[i].copy() for i in intercepts]
        return mlp


def make_model(name: str, options: Mapping[str, Any], features: int = 2, classes: int = 2) -> Model:
    """Return the model called `name`: logistic, mlp (option hidden_units) or a user's own `package.module:Class`.

    Raises:
        SettingError: there is no such model, it cannot be made with these options, or it lacks a method.
    """
    builtin: dict[str, Callable[..., Any]] = {"logistic": Logistic, "mlp": Mlp}
    module, _, attribute = name.partition(":")
    if name not in builtin and not (module and attribute):
        raise _refused("MODEL", name, "mean, logistic, mlp, package.module:Class")
    try:
        make = builtin.get(name) or getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module may raise anything, and so may the class
        raise _refused("MODEL", name, f"an importable package.module:Class; it says: {error}") from error
    try:
        model: Model = make(features=features, classes=classes, **options)
    except SettingError:
        raise
    except Exception as error:
        raise _refused("MODEL_OPTIONS", dict(options), f"options that {name} takes; it says: {error}") from error
    missing = [method for method in _METHODS if not callable(getattr(model, method, None))]
    if missing:
        raise _refused("MODEL", name, f"a class with {', '.join(_METHODS)}; it has no {', '.join(missing)}")
    return model


def configured_model(settings: Settings) -> Model:
    """Return the model that MODEL and MODEL_OPTIONS name, for readings of FEATURES and CLASSES.

    Raises:
        SettingError: they cannot be used.
    """
    options = parse_options("MODEL_OPTIONS", settings.model_options)
    return make_model(settings.model, options, len(settings.table), settings.classes)


def _refused(setting: str, got: Any, expected: str) -> SettingError:
    return SettingError(f"{setting} is {got!r}; expected {expected}")


def _names(layer: int) -> tuple[str, str]:
    return f"coefs_{layer}", f"intercepts_{layer}"


def _random(seed: int) -> np.random.RandomState:
    return np.random.RandomState(seed % 2**32)  # its stream is frozen, that of default_rng() may change with numpy


def _train(
    estimator: Any,
    current: Callable[[], Arrays],
    start: Arrays,
    x: Matrix,
    y: Labels,
    config: TrainConfig,
    classes: int,
) -> Arrays:
    """Call partial_fit once an epoch, or once a mini-batch with the proximal term after it.

    The term µ/2 ‖w - w0‖² (FedProx: Li et al. 2020, eq. 2) acts through its proximal step w <- (w + ηµ w0) / (1 + ηµ),
    once for each gradient step taken: unlike a gradient step, it cannot overshoot, however large µ is.
    """
    weights, is_mlp = config.sample_weight(y, classes), hasattr(estimator, "hidden_layer_sizes")
    for _ in range(config.epochs if len(y) else 0):
        batches = [np.arange(len(y))]
        if config.proximal_mu > 0:
            cuts = range(config.batch_size, len(y), config.batch_size)
            batches = np.split(estimator.random_state.permutation(len(y)), cuts)
        for rows in batches:
            if is_mlp:
                estimator.set_params(batch_size=min(config.batch_size, len(rows)))
            chosen = None if weights is None else weights[rows]
            estimator.partial_fit(x[rows], y[rows], classes=np.arange(classes), sample_weight=chosen)
            if config.proximal_mu > 0:
                kept = (1 + config.learning_rate * config.proximal_mu) ** -(1 if is_mlp else len(rows))
                for name, array in current().items():
                    array[...] = start[name] + kept * (array - start[name])
    return {name: array.copy() for name, array in current().items()}
