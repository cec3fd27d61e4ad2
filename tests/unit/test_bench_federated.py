"""The grid of simulated federations: each choice with each other one, and what is known of a simulation's keys."""

from __future__ import annotations

from dataclasses import fields

import pytest

from bench.learning import federated, report
from fedstream.settings import Settings
from fedstream.simulation.scenario import Scenario


def test_a_section_combines_what_is_fixed_with_each_choice(monkeypatch):
    monkeypatch.setitem(federated.PRESETS, "small", {"model": "logistic", "local_epochs": 5})
    section = {
        "fixed": {"nodes": 3},
        "vary": {"data": ["digits", "sensors"], "how": {"quick": {"like": "small", "local_epochs": 1}}},
    }
    assert list(federated.scenarios(section)) == [
        ({"data": "digits", "how": "quick"}, {"nodes": 3, "data": "digits", "model": "logistic", "local_epochs": 1}),
        ({"data": "sensors", "how": "quick"}, {"nodes": 3, "data": "sensors", "model": "logistic", "local_epochs": 1}),
    ]


@pytest.mark.parametrize("name", federated.SECTIONS)
def test_every_scenario_can_be_made(name):
    own = {field.name for field in fields(Scenario)}
    for _, given in federated.scenarios(federated.SECTIONS[name]):
        settings = {key: value for key, value in given.items() if key not in own | {"seeds", "baselines"}}
        Scenario(**{key: value for key, value in given.items() if key in own})
        assert Settings(**settings).model in ("logistic", "mlp")


def test_mean_and_deviation_are_those_of_the_seeds():
    # Mean of 0.5, 0.7 and 0.9: 0.7; squares of the differences 0.04 + 0 + 0.04 over 2: 0.04, its root 0.2.
    found = federated.spread_of([0.5, 0.7, 0.9])
    assert (found["mean"], found["std"]) == (pytest.approx(0.7), pytest.approx(0.2))
    assert report.value(found) == "0.7000 ± 0.2000"
    assert federated.spread_of([0.5])["std"] == 0
