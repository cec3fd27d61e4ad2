"""The measures of a model, against scikit-learn's own."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from msgspec import to_builtins
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_score, recall_score

from fedstream.errors import BadMessage
from fedstream.learning.scores import MEASURES, Score, score
from fedstream.messages.door import decode, encode


def predictions(classes, n=400, seed=3):
    random = np.random.RandomState(seed)
    return random.dirichlet(np.ones(classes), n), random.randint(classes, size=n)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_two_classes_give_the_measures_of_class_1_as_in_scikit_learn(threshold):
    probabilities, y = predictions(2)
    predicted = (probabilities[:, 1] >= threshold).astype(int)
    found = score(probabilities, y, threshold)
    assert found.num_examples == 400
    assert found.confusion == tuple(map(tuple, confusion_matrix(y, predicted).tolist()))
    assert found.loss == pytest.approx(log_loss(y, probabilities), rel=1e-12)
    assert found.accuracy == pytest.approx(accuracy_score(y, predicted))
    assert found.f1 == pytest.approx(f1_score(y, predicted))
    assert found.recall == pytest.approx(recall_score(y, predicted))
    assert found.precision == pytest.approx(precision_score(y, predicted))
    assert found.false_alarm_rate == pytest.approx(1 - recall_score(y, predicted, pos_label=0))


def test_more_classes_give_the_macro_means_as_in_scikit_learn():
    probabilities, y = predictions(4)
    predicted = probabilities.argmax(axis=1)
    found = score(probabilities, y)
    assert found.confusion == tuple(map(tuple, confusion_matrix(y, predicted).tolist()))
    assert found.loss == pytest.approx(log_loss(y, probabilities), rel=1e-12)
    assert found.f1 == pytest.approx(f1_score(y, predicted, average="macro"))
    assert found.recall == pytest.approx(recall_score(y, predicted, average="macro"))
    assert found.precision == pytest.approx(precision_score(y, predicted, average="macro"))
    specificities = [recall_score(y == c, predicted == c, pos_label=False) for c in range(4)]
    assert found.false_alarm_rate == pytest.approx(1 - np.mean(specificities))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_scores_of_two_parts_add_up_to_the_score_of_the_whole(classes):
    probabilities, y = predictions(classes)
    parts = score(probabilities[:150], y[:150]) + score(probabilities[150:], y[150:])
    whole = score(probabilities, y)
    assert parts.confusion == whole.confusion
    assert parts.loss_sum == pytest.approx(whole.loss_sum, rel=1e-12)


def test_an_empty_score_adds_nothing_on_either_side():
    some = score(*predictions(3))
    assert Score() + some == some + Score() == some


def test_scores_of_different_numbers_of_classes_do_not_add_up():
    with pytest.raises(ValueError, match="zip"):
        score(*predictions(3)) + score(*predictions(2))


def test_a_probability_at_the_threshold_predicts_class_1():
    assert score(np.array([[0.5, 0.5]]), np.array([0])).confusion == ((0, 1), (0, 0))


def test_a_sure_but_wrong_prediction_has_a_finite_loss():
    assert score(np.array([[1.0, 0.0]]), np.array([1])).loss == pytest.approx(-math.log(1e-15))


def test_no_reading_at_all_gives_zeros():
    for empty in (Score(), score(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))):
        measures = to_builtins(empty)
        measures.pop("confusion")
        assert set(measures.values()) == {0}


def test_a_score_survives_the_wire():
    found = score(*predictions(3))
    message = json.loads(encode(found))
    assert decode(Score, encode(found)) == found
    assert message["f1"] == found.f1
    assert set(message) == {
        *("num_examples", "loss", "accuracy", "f1", "recall", "precision", "false_alarm_rate", "confusion", "loss_sum")
    }


def test_the_measures_follow_from_the_sums_whatever_a_message_says():
    found = decode(Score, b'{"loss_sum":1.0,"confusion":[[1,1],[0,2]],"num_examples":99,"accuracy":0.1,"f1":0.5}')
    # Three of four right; 2 * 2 / (2 * 2 + 1) = 0.8.
    assert (found.num_examples, found.loss, found.accuracy, found.f1) == (4, 0.25, 0.75, 0.8)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        *(({"loss_sum": bad}, "loss_sum") for bad in ("null", '"1"', "true", "-0.1", "1e999", "1" + "0" * 400)),
        *(
            ({"confusion": bad}, "confusion")
            for bad in ("null", "3", "[1,2]", "[[1,2]]", "[[1,2],[3]]", "[[1.5]]", "[[true]]")
        ),
        *(({"confusion": bad}, "confusion") for bad in ("[[-1,0],[0,0]]", "[[9223372036854775808]]", '["ab","cd"]')),
    ],
)
def test_a_bad_score_is_refused_by_the_name_of_its_part(change, part):
    fields = {"loss_sum": "1.0", "confusion": "[[1,0],[0,1]]"} | change
    with pytest.raises(BadMessage, match=part):
        decode(Score, ("{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}").encode())


def test_a_score_that_is_no_object_is_refused():
    with pytest.raises(BadMessage, match="not a JSON object but a list"):
        decode(Score, b"[1]")


def test_the_table_of_measures_names_each_measure_once_and_knows_in_which_the_lowest_is_best():
    names = [measure.name for measure in MEASURES]
    assert len(set(names)) == len(names)
    assert set(names) <= set(Score.__struct_fields__)
    assert {measure.name for measure in MEASURES if measure.is_lowest_best} == {"loss", "false_alarm_rate"}
