"""The models: their training against calculations by hand, and that the same arguments give the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from fedstream.errors import SettingError
from fedstream.learning.arrays import layout
from fedstream.learning.models import TrainConfig, make_model
from fedstream.learning.scores import score
from tests.unit.report import label_of

MODELS = [("logistic", {}), ("mlp", {}), ("mlp", {"hidden_units": "8,4"})]
every_model = pytest.mark.parametrize(("name", "options"), MODELS, ids=["logistic", "mlp", "two-layers"])
every_number_of_classes = pytest.mark.parametrize("classes", [2, 3])


def seed_rule(n, seed=0):
    """Return n readings of the simulator's rule, each feature scaled by the law it is drawn from."""
    random = np.random.RandomState(seed)
    temperature, vibration = random.uniform(60, 90, n), random.uniform(0.02, 0.1, n)
    y = np.array([label_of(t, v) for t, v in zip(temperature, vibration, strict=True)])
    return np.column_stack([(temperature - 75) / 75**0.5, (vibration - 0.06) * 12**0.5 / 0.08]), y


def some_rows(classes, n=60, features=3, seed=0):
    random = np.random.RandomState(seed)
    return random.normal(size=(n, features)), random.randint(classes, size=n)


def as_bytes(arrays):
    return {name: array.tobytes() for name, array in arrays.items()}


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays.values()])


def started(model, seed=1):
    """Return arrays none of which is zero."""
    return {name: array + 0.1 for name, array in model.initial_arrays(seed).items()}


@every_model
@every_number_of_classes
@pytest.mark.parametrize("mu", [0.0, 0.1])
def test_the_same_arguments_give_the_same_bytes_and_stay_as_they_are(name, options, classes, mu):
    x, y = some_rows(classes)
    arrays = started(make_model(name, options, 3, classes))
    before = as_bytes(arrays), x.tobytes(), y.tobytes()
    config = TrainConfig(epochs=2, batch_size=16, proximal_mu=mu)
    results = [make_model(name, options, 3, classes).fit(arrays, x, y, config, seed=9) for _ in range(2)]
    assert as_bytes(results[0]) == as_bytes(results[1])
    assert (as_bytes(arrays), x.tobytes(), y.tobytes()) == before
    assert as_bytes(results[0]) != before[0]
    assert list(layout(results[0]).items()) == list(layout(arrays).items())
    other = make_model(name, options, 3, classes).fit(arrays, x, y, config, seed=10)
    assert as_bytes(other) != as_bytes(results[0])


@every_model
@every_number_of_classes
def test_zero_rows_give_a_copy(name, options, classes):
    model = make_model(name, options, 3, classes)
    arrays = started(model)
    nothing = np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    for class_weight in ("none", "balanced", "1:3"):
        result = model.fit(arrays, *nothing, TrainConfig(class_weight=class_weight), seed=0)
        assert as_bytes(result) == as_bytes(arrays)
        assert not any(np.shares_memory(result[part], arrays[part]) for part in arrays)
    assert model.predict(arrays, nothing[0]).shape == (0, classes)


@every_model
@every_number_of_classes
def test_rows_of_a_single_class_and_a_single_row_can_be_learned(name, options, classes):
    model = make_model(name, options, 3, classes)
    x, _ = some_rows(classes, n=40)
    for n, mu in ((40, 0.0), (1, 0.0), (40, 0.1)):
        config = TrainConfig(class_weight="balanced", proximal_mu=mu)
        after = model.fit(started(model), x[:n], np.full(n, classes - 1), config, seed=0)
        assert (model.predict(after, x[:n])[:, -1] > model.predict(started(model), x[:n])[:, -1]).mean() > 0.9


@every_model
@every_number_of_classes
def test_probabilities_are_a_row_per_reading_that_sums_to_1(name, options, classes):
    model = make_model(name, options, 3, classes)
    x, _ = some_rows(classes)
    for scale in (1.0, 1e6):
        probabilities = model.predict(started(model), x * scale)
        assert probabilities.shape == (60, classes)
        assert probabilities.min() >= 0
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize(("name", "options"), [("logistic", {}), ("mlp", {"hidden_units": 2})])
def test_a_margin_beyond_every_float_is_as_sure_as_can_be(name, options):
    model = make_model(name, options)
    arrays = {name: np.full_like(array, 1.7e308) for name, array in model.initial_arrays(1).items()}
    np.testing.assert_allclose(model.predict(arrays, np.array([[3.0, 3.0]])), [[0.0, 1.0]], atol=1e-15)


@every_number_of_classes
def test_logistic_predicts_as_scikit_learn(classes):
    x, y = some_rows(classes)
    reference = SGDClassifier(loss="log_loss", random_state=0).fit(x, y)
    arrays = {"coef": reference.coef_, "intercept": reference.intercept_}
    found = make_model("logistic", {}, 3, classes).predict(arrays, x)
    np.testing.assert_allclose(found, reference.predict_proba(x), rtol=1e-9)


def test_logistic_takes_the_step_that_the_gradient_by_hand_gives():
    # One row: w <- w - rate * weight * (sigmoid(w x + b) - y) * x
    x, w, b = np.array([[0.5, -2.0]]), np.array([[0.3, 0.2]]), np.array([0.1])
    p = 1 / (1 + np.exp(-(0.5 * 0.3 - 2.0 * 0.2 + 0.1)))
    config = TrainConfig(epochs=1, learning_rate=0.05, class_weight="1:3")
    after = make_model("logistic", {}).fit({"coef": w, "intercept": b}, x, np.array([1]), config, seed=0)
    np.testing.assert_allclose(after["coef"], w - 0.05 * 3 * (p - 1) * x, rtol=1e-12)
    np.testing.assert_allclose(after["intercept"], b - 0.05 * 3 * (p - 1), rtol=1e-12)


@every_number_of_classes
def test_mlp_predicts_what_a_forward_pass_by_hand_gives(classes):
    model = make_model("mlp", {"hidden_units": "8,4"}, 3, classes)
    a, (x, _) = started(model), some_rows(classes)
    hidden = np.maximum(x @ a["coefs_0"] + a["intercepts_0"], 0)
    hidden = np.maximum(hidden @ a["coefs_1"] + a["intercepts_1"], 0)
    z = hidden @ a["coefs_2"] + a["intercepts_2"]
    z = np.hstack([np.zeros_like(z), z]) if classes == 2 else z
    np.testing.assert_allclose(model.predict(a, x), np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), rtol=1e-10)


@every_number_of_classes
@pytest.mark.parametrize("class_weight", ["none", "0:1,1:5"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_mlp_takes_the_first_step_along_the_slope_of_the_log_loss(classes, class_weight, solver):
    # A fresh Adam's first step is rate * gradient / (|gradient| + 1e-8), that of sgd rate * gradient; the gradient is
    # taken by differences.
    model = make_model("mlp", {"hidden_units": 4, "solver": solver}, 3, classes)
    config = TrainConfig(1, 64, 0.01, class_weight)
    arrays, (x, y) = started(model), some_rows(classes)
    weights = np.where(y == 1, 5.0 if class_weight != "none" else 1.0, 1.0)

    def loss(arrays):
        return np.average(-np.log(model.predict(arrays, x)[np.arange(len(y)), y]), weights=weights)

    after = model.fit(arrays, x, y, config, seed=0)
    for name, array in arrays.items():
        for place in np.ndindex(array.shape):
            nudge = np.zeros_like(array)
            nudge[place] = 1e-5
            slope = (loss(arrays | {name: array + nudge}) - loss(arrays | {name: array - nudge})) / 2e-5
            found = after[name][place] - array[place]
            if solver == "sgd":
                assert found == pytest.approx(-0.01 * slope, abs=1e-9)
            else:
                step = -0.01 * slope / (abs(slope) + 1e-8)
                assert found == pytest.approx(step, abs=1e-5 if abs(slope) > 1e-6 else 0.01)


def test_sgd_keeps_no_momentum_between_the_steps_of_a_round():
    # So that many steps in one round and one step in each of as many rounds are the same.
    model = make_model("mlp", {"solver": "sgd"}, 3, 2)
    arrays, (x, y) = started(model), some_rows(2)
    at_once = model.fit(arrays, x, y, TrainConfig(3, len(x), 0.1), seed=0)
    for _ in range(3):
        arrays = model.fit(arrays, x, y, TrainConfig(1, len(x), 0.1), seed=0)
    for name, array in arrays.items():
        np.testing.assert_allclose(at_once[name], array, rtol=1e-9, atol=1e-12)


def test_the_proximal_step_of_one_row_is_the_formula():
    # (w + rate * mu * w0) / (1 + rate * mu), with w from the step without the term
    model, arrays = make_model("logistic", {}), {"coef": np.array([[0.3, 0.2]]), "intercept": np.array([0.1])}
    row = np.array([[0.5, -2.0]]), np.array([1])
    free = model.fit(arrays, *row, TrainConfig(epochs=1, learning_rate=0.05), seed=0)
    held = model.fit(arrays, *row, TrainConfig(epochs=1, learning_rate=0.05, proximal_mu=4.0), seed=0)
    for name, start in arrays.items():
        np.testing.assert_allclose(held[name], (free[name] + 0.05 * 4 * start) / (1 + 0.05 * 4), rtol=1e-12)


def test_the_proximal_step_of_one_batch_of_the_mlp_is_the_formula():
    model, (x, y) = make_model("mlp", {}, 3), some_rows(2)
    arrays = started(model)
    free = model.fit(arrays, x, y, TrainConfig(epochs=1, batch_size=60), seed=0)
    held = model.fit(arrays, x, y, TrainConfig(epochs=1, batch_size=60, proximal_mu=50.0), seed=0)
    for name, start in arrays.items():
        # The free step sums the rows in another order, so the last bits of its gradient differ.
        np.testing.assert_allclose(held[name], (free[name] + 0.01 * 50 * start) / (1 + 0.01 * 50), rtol=1e-6)


@every_model
@every_number_of_classes
def test_a_larger_mu_holds_the_arrays_closer_to_their_start_and_a_huge_one_holds_them_there(name, options, classes):
    model, (x, y) = make_model(name, options, 3, classes), some_rows(classes)
    arrays = started(model)
    moved = [
        np.linalg.norm(flat(model.fit(arrays, x, y, TrainConfig(batch_size=8, proximal_mu=mu), seed=0)) - flat(arrays))
        for mu in (0.0, 1.0, 100.0, 1e9)
    ]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 1e-6 < moved[-2]


def test_mlp_starts_from_glorot_uniform_arrays_that_only_the_seed_decides():
    arrays = make_model("mlp", {}, 300).initial_arrays(7)
    bound = (6 / 316) ** 0.5
    assert layout(arrays) == {"coefs_0": (300, 16), "intercepts_0": (16,), "coefs_1": (16, 1), "intercepts_1": (1,)}
    assert 0.99 * bound < np.abs(arrays["coefs_0"]).max() <= bound
    assert as_bytes(arrays) == as_bytes(make_model("mlp", {}, 300).initial_arrays(7))
    assert as_bytes(arrays) != as_bytes(make_model("mlp", {}, 300).initial_arrays(8))
    # The first number of numpy's frozen generator for seed 7 is 0.07630829, on every machine and in every version.
    assert arrays["coefs_0"][0, 0] == pytest.approx(bound * (2 * 0.07630829 - 1), rel=1e-6)


def test_logistic_is_capped_on_the_seed_rule_and_the_mlp_is_not():
    x, y = seed_rule(20_000)
    held_out = seed_rule(5_000, seed=1)
    accuracy = {}
    for name in ("logistic", "mlp"):
        model = make_model(name, {})
        after = model.fit(model.initial_arrays(0), x, y, TrainConfig(), seed=0)
        accuracy[name] = score(model.predict(after, held_out[0]), held_out[1]).accuracy
    assert 0.79 < accuracy["logistic"] < 0.84
    assert accuracy["mlp"] >= 0.985


@pytest.mark.parametrize("name", ["logistic", "mlp"])
@pytest.mark.parametrize("class_weight", ["balanced", "0:1,1:5"])
def test_class_weights_raise_the_recall_of_a_rare_class(name, class_weight):
    random = np.random.RandomState(0)
    y = (random.uniform(size=3000) < 0.05).astype(int)
    x = random.normal(size=(3000, 2)) + y[:, None]
    model = make_model(name, {})
    recall = {}
    for weight in ("none", class_weight):
        after = model.fit(model.initial_arrays(0), x, y, TrainConfig(class_weight=weight), seed=0)
        recall[weight] = score(model.predict(after, x), y).recall
    assert recall[class_weight] > recall["none"] + 0.2


def test_balanced_gives_each_class_present_the_same_total_weight():
    weights = TrainConfig(class_weight="balanced").sample_weight(np.array([0, 0, 0, 2]), classes=3)
    assert weights == pytest.approx([4 / 6, 4 / 6, 4 / 6, 4 / 2])  # n / (classes present * readings of the class)


@pytest.mark.parametrize(
    "text", ["", "heavy", "0", "0:1,1:0", "0:1,1:-2", "1:nan", "1:inf", "-1:2", "1:2,1:3", "1:2:3"]
)
def test_a_bad_class_weight_is_refused_with_its_value(text):
    with pytest.raises(SettingError, match="CLASS_WEIGHT is ") as refusal:
        TrainConfig(class_weight=text)
    assert repr(text) in str(refusal.value)
    assert "balanced" in str(refusal.value)


@pytest.mark.parametrize("units", [0, -3, "16,", "16,0", "wide", 2.5, True, None])
def test_bad_hidden_units_are_refused_with_their_value(units):
    with pytest.raises(SettingError, match=r"MODEL_OPTIONS is .*hidden_units"):
        make_model("mlp", {"hidden_units": units})


def test_a_bad_solver_is_refused_with_its_value():
    with pytest.raises(SettingError, match=r"MODEL_OPTIONS is {'solver': 'lbfgs'}.*solver=sgd"):
        make_model("mlp", {"solver": "lbfgs"})


@pytest.mark.parametrize("name", ["", "forest", "mean", ":Class", "package:"])
def test_an_unknown_model_is_refused_with_the_known_ones(name):
    with pytest.raises(SettingError, match=r"mean, logistic, mlp, package\.module:Class"):
        make_model(name, {})


def test_an_option_that_the_model_does_not_take_is_refused():
    with pytest.raises(SettingError, match=r"MODEL_OPTIONS is {'depth': 3}.*logistic.*depth"):
        make_model("logistic", {"depth": 3})


OWN = """
class Majority:
    def __init__(self, features, classes, bias=0.0):
        if bias < 0:
            raise ValueError("bias is negative")
        self.shape, self.bias = (features, classes), bias
    def initial_arrays(self, seed): return {}
    def fit(self, arrays, x, y, config, seed): return {}
    def predict(self, arrays, x): return x
class Half:
    def __init__(self, features, classes): pass
    def predict(self, arrays, x): return x
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_models_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_models_of_a_test"


def test_a_users_own_model_is_made_with_its_options(own_module):
    model = make_model(f"{own_module}:Majority", {"bias": 0.5}, features=4, classes=3)
    assert (model.shape, model.bias) == ((4, 3), 0.5)


def test_a_users_own_model_that_cannot_be_used_is_refused_with_the_reason(own_module):
    with pytest.raises(SettingError, match=r"MODEL is .*no initial_arrays, fit"):
        make_model(f"{own_module}:Half", {})
    with pytest.raises(SettingError, match=r"MODEL_OPTIONS is {'bias': -1}.*bias is negative"):
        make_model(f"{own_module}:Majority", {"bias": -1})
    with pytest.raises(SettingError, match=r"MODEL is .*Missing.*package\.module:Class"):
        make_model(f"{own_module}:Missing", {})
    with pytest.raises(SettingError, match=r"MODEL is .*No module named"):
        make_model("no_such_module_anywhere:Class", {})
