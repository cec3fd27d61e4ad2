"""A node's training: the scaler against StandardScaler, test-then-train, and partitions joined into one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from fedstream.errors import BadMessage
from fedstream.learning.models import TrainConfig, make_model
from fedstream.learning.scores import Score, score
from fedstream.learning.training import Scaler, Trained, merge_trained, train
from fedstream.messages.door import decode, encode
from fedstream.messages.weights import RunningSums, merge_sums, sums_of


@pytest.fixture
def readings():
    random = np.random.RandomState(5)
    return np.column_stack([random.uniform(60, 90, 900), random.uniform(0.02, 0.1, 900)])


def test_three_nodes_together_scale_as_one_standard_scaler_over_all_rows(readings):
    nodes = [readings[:100], readings[100:150], readings[150:]]
    scaler = merge_sums(map(sums_of, nodes)).scaler()
    reference = StandardScaler().fit(readings)
    np.testing.assert_allclose(scaler.mean, reference.mean_, rtol=1e-12)
    np.testing.assert_allclose(scaler.std, reference.scale_, rtol=1e-10)
    np.testing.assert_allclose(scaler.apply(readings), reference.transform(readings), atol=1e-9)


def test_the_order_of_the_nodes_changes_no_bit_of_the_merged_statistics(readings):
    # Plain addition gives 0.0 or 1.0 for these sums, whatever comes first.
    extreme = [RunningSums(1, (value, 0.1), (value * value, 0.01)) for value in (1e16, 1.0, -1e16)]
    for parts in (extreme, [sums_of(readings[i::5]) for i in range(4)]):
        assert len({merge_sums(order) for order in itertools.permutations(parts)}) == 1
    assert merge_sums(extreme).sums[0] == 1.0


def test_an_ordinary_std_is_bit_for_bit_the_root_of_the_computed_variance(readings):
    known = sums_of(readings)
    means, squares = ([total / 900 for total in totals] for totals in (known.sums, known.squares))
    scaler = known.scaler()
    assert scaler.mean == tuple(means)
    assert scaler.std == tuple(math.sqrt(square - mean * mean) for square, mean in zip(squares, means, strict=True))


BEGIN_MS = 1.7e12  # a time stamp of November 2023


def wide(column, nodes):
    """Return a matrix with this column, and the scaler of its rows dealt out to nodes.

    Of a matrix of several columns numpy adds up row after row, which rounds most.
    """
    x = np.column_stack([column, column[::-1], column])
    return x, merge_sums(sums_of(x[i::nodes]) for i in range(nodes)).scaler()


@pytest.mark.parametrize("nodes", [1, 10])
@pytest.mark.parametrize(
    ("column", "rtol"),
    [
        pytest.param(np.linspace(60, 90, 900), 1e-10, id="°C"),
        pytest.param(np.linspace(2e-8, 1e-7, 900), 1e-10, id="tiny"),
        pytest.param(np.linspace(-1e-140, 1e-140, 900), 1e-10, id="tiniest"),
        pytest.param(np.arange(1e5), 1e-10, id="row number"),
        pytest.param(BEGIN_MS + 86_400_000 * np.arange(30.0), 1e-6, id="a month of days"),
        pytest.param(BEGIN_MS + 60_000 * np.arange(1440.0), 1e-4, id="a day of minutes"),
        pytest.param(BEGIN_MS + 60_000 * np.arange(60.0), 0.01, id="an hour of minutes"),
        pytest.param(BEGIN_MS + 9000 * np.arange(400.0), 0.01, id="an hour, every nine seconds"),
        pytest.param(1000 * (BEGIN_MS + 9000 * np.arange(400.0)), 0.01, id="the same in µs"),
        # 1.04e6 beside the 1.08e6 that the rounding of 3,600 additions may hide: here the sums' precision ends.
        pytest.param(BEGIN_MS + 1000 * np.arange(3600.0), 0.05, id="an hour of seconds"),
    ],
)
def test_a_small_deviation_beside_a_large_mean_is_no_constant(column, rtol, nodes):
    x, scaler = wide(column, nodes)
    reference = StandardScaler().fit(x)
    np.testing.assert_allclose(scaler.std, reference.scale_, rtol=rtol)
    np.testing.assert_allclose(scaler.apply(x), reference.transform(x), atol=2 * rtol)


@pytest.mark.parametrize("nodes", [1, 10])
@pytest.mark.parametrize(
    "column",
    [
        pytest.param(BEGIN_MS + 1000 * np.arange(600.0), id="ten minutes of seconds"),
        pytest.param(BEGIN_MS + 1000 * np.arange(60.0), id="a minute of seconds"),
        pytest.param(BEGIN_MS + 100 * np.arange(36_000.0), id="an hour, ten a second"),
        pytest.param(1e9 + np.tile([0.0, 10.0, 20.0], 30), id="a meter"),
    ],
)
def test_a_deviation_that_the_sums_cannot_tell_gives_no_large_number(column, nodes):
    x, scaler = wide(column, nodes)
    scaled, reference = np.abs(scaler.apply(x)).max(), np.abs(StandardScaler().fit_transform(x)).max()
    assert 0 < scaled <= reference


def test_a_narrow_feature_keeps_its_deviation_however_many_readings_there_are():
    # A grid's 50 ± 0.02 Hz: E[x²] = 50² + 0.02².
    count = 10**11
    scaler = RunningSums(count, (50.0 * count,), (2500.0004 * count,)).scaler()
    assert scaler.std[0] == pytest.approx(0.02, rel=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 1000, 9000])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, 73.3, -1e-9, 1e4 + 0.1])
def test_a_constant_feature_is_only_shifted_as_by_standard_scaler(constant, rows):
    x, scaler = wide(np.full(rows, constant), nodes=1)
    assert scaler.std == tuple(StandardScaler().fit(x).scale_) == (1.0, 1.0, 1.0)
    np.testing.assert_allclose(scaler.apply(x), 0.0, atol=1e-7)


@pytest.mark.parametrize("rows", [3, 1000, 9000])
@pytest.mark.parametrize("constant", [1e9 + 0.1, 1.7e12, 1.7e12 + 0.1, -1.7e15])
def test_a_constant_feature_of_large_numbers_becomes_0(constant, rows):
    # Nearer than StandardScaler's, which gives 0.09 for the third one: its std is 1, although its mean is rounded, too.
    x, scaler = wide(np.full(rows, constant), nodes=1)
    assert min(scaler.std) >= 1.0
    np.testing.assert_allclose(scaler.apply(x), 0.0, atol=1e-6)


def test_no_reading_gives_no_scaler():
    with pytest.raises(ZeroDivisionError):
        RunningSums(0, (0.0,), (0.0,)).scaler()


def test_a_scaler_survives_the_wire(readings):
    scaler = sums_of(readings).scaler()
    assert decode(Scaler, encode(scaler)) == scaler


BAD_NUMBERS = ("null", "1.0", '"12"', '["1",2.0]', "[true,1.0]", "[NaN,1.0]", "[1e999,1.0]", f"[1{'0' * 400},1.0]")


@pytest.mark.parametrize("bad", [*BAD_NUMBERS, "[0.0,1.0]", "[-1.0,1.0]", "[1.0]"])
def test_a_bad_scaler_is_refused(bad):
    with pytest.raises(BadMessage, match=r"std|not JSON"):
        decode(Scaler, f'{{"mean":[-1.0,2.0],"std":{bad}}}'.encode())


def test_what_is_no_object_is_no_scaler():
    with pytest.raises(BadMessage, match="not a JSON object but a list"):
        decode(Scaler, b"[1.0]")


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_readings_are_measured_before_they_are_learned(name, readings):
    # Labels of pure noise: only a model that has already seen these rows can do better on them than the old arrays.
    y = np.random.RandomState(0).randint(2, size=len(readings))
    model, scaler = make_model(name, {}), sums_of(readings).scaler()
    arrays, config = model.initial_arrays(3), TrainConfig(epochs=20)
    trained = train(model, arrays, scaler, readings, y, config, seed=4, threshold=0.4)
    x = scaler.apply(readings)
    assert trained.score == score(model.predict(arrays, x), y, threshold=0.4)
    assert score(model.predict(trained.arrays, x), y).loss < trained.score.loss
    expected = model.fit(arrays, x, y, config, seed=4)
    assert all(trained.arrays[part].tobytes() == expected[part].tobytes() for part in expected)
    assert trained.num_examples == 900


def test_without_a_scaler_the_readings_are_taken_as_they_are(readings):
    model, y = make_model("logistic", {}), np.arange(900) % 2
    arrays = model.initial_arrays(0)
    plain = train(model, arrays, None, readings, y, TrainConfig(), seed=1)
    unit = train(model, arrays, Scaler((0.0, 0.0), (1.0, 1.0)), readings, y, TrainConfig(), seed=1)
    assert plain.arrays["coef"].tobytes() == unit.arrays["coef"].tobytes()


def test_partitions_are_averaged_by_their_readings_and_their_scores_added():
    # (1 * 10 + 3 * 2) / 4 = 4 and (1 * 0 + 3 * 4) / 4 = 3
    parts = [
        Trained({"w": np.array([10.0, 0.0])}, 1, Score(0.5, ((1, 0), (0, 0)))),
        Trained({"w": np.array([2.0, 4.0])}, 3, Score(0.25, ((0, 1), (1, 1)))),
    ]
    merged = merge_trained(parts)
    assert merged.arrays["w"].tolist() == [4.0, 3.0]
    assert merged.num_examples == 4
    assert merged.score == Score(0.75, ((1, 1), (1, 1)))
    assert parts[0].arrays["w"].tolist() == [10.0, 0.0]


def test_a_single_partition_stays_as_it_is():
    part = Trained({"w": np.array([0.1, 0.7])}, 3, Score(0.1, ((1, 1), (1, 0))))
    merged = merge_trained([part])
    assert merged.arrays["w"].tobytes() == part.arrays["w"].tobytes()
    assert merged.score == part.score


def test_an_empty_partition_does_not_count():
    full, empty = Trained({"w": np.array([0.1])}, 3, Score()), Trained({"w": np.array([9.0])}, 0, Score())
    assert merge_trained([empty, full]).arrays["w"].tolist() == [0.1]


def test_partitions_without_any_reading_have_no_average():
    with pytest.raises(ZeroDivisionError):
        merge_trained([Trained({"w": np.zeros(1)}, 0, Score())])
