"""The jobs' settings: defaults, values from the environment, and what is said of a bad value."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from fedstream.errors import SettingError
from fedstream.settings import Settings, given_settings, parse_options

ANOTHER_VALUE = {
    "KAFKA_BOOTSTRAP_SERVERS": ("kafka:29092,other:9092", "kafka:29092,other:9092"),
    "CHECKPOINT_DIR": ("/data/checkpoints", Path("/data/checkpoints")),
    "WAIT_TIMEOUT_SECONDS": ("2.5", 2.5),
    "STALL_TIMEOUT_SECONDS": ("30", 30.0),
    "FEATURES": ("temperature:-40:125.5:1,vibration:0:16:100", "temperature:-40:125.5:1,vibration:0:16:100"),
    "FIELDS": ("sensor_id=node_id,label=anomaly", "sensor_id=node_id,label=anomaly"),
    "LABELS": ("optional", "optional"),
    "CLASSES": ("3", 3),
    "LABEL_RULE": ("temperature>90", "temperature>90"),
    "SIMULATED_RANGES": ("vibration:0:2", "vibration:0:2"),
    "MAX_VALUE_BYTES": ("1048576", 1_048_576),
    "MAX_OFFSETS_PER_TRIGGER": ("1", 1),
    "MAX_UPDATES_PER_TRIGGER": ("7", 7),
    "FETCH_MAX_WAIT_MS": ("0", 0),
    "TRIGGER_INTERVAL_MS": ("250", 250),
    "TOPIC_PARTITIONS": ("1000", 1000),
    "REALTIME_INTERVAL_SECONDS": ("5", 5.0),
    "SINK_LINGER_MS": ("20", 20),
    "NUMBERS_HOST": ("producer", "producer"),
    "NUMBERS_PORT": ("65535", 65_535),
    "MODEL": ("logistic", "logistic"),
    "MODEL_OPTIONS": ("hidden_units=8", "hidden_units=8"),
    "LOCAL_EPOCHS": ("2", 2),
    "TRAIN_BATCH_SIZE": ("1", 1),
    "LEARNING_RATE": ("0.5", 0.5),
    "CLASS_WEIGHT": ("0:1,1:5", "0:1,1:5"),
    "DECISION_THRESHOLD": ("0.25", 0.25),
    "FEATURE_SCALING": ("none", "none"),
    "UPDATE_MIN_READINGS": ("1", 1),
    "UPDATE_MAX_WAIT_SECONDS": ("0.5", 0.5),
    "UPDATE_INTERVAL_MS": ("3000", 3000),
    "CLOUD_INTERVAL_MS": ("250", 250),
    "MAX_READINGS_PER_UPDATE": ("500", 500),
    "MAX_UPDATE_BYTES": ("2000", 2000),
    "MAX_UPDATE_NORM": ("2.5", 2.5),
    "STRATEGY": ("FedAdam", "FedAdam"),
    "STRATEGY_OPTIONS": ("eta=0.1,beta_1=0.9", "eta=0.1,beta_1=0.9"),
    "ROUND_MODE": ("async", "async"),
    "ROUND_QUORUM": ("5", 5),
    "ROUND_DEADLINE_SECONDS": ("2", 2.0),
    "ROUND_MIN_EXAMPLES": ("50", 50),
    "VERSIONS_KEPT": ("2", 2),
    "ROUND_PATIENCE": ("1", 1),
    "KNOWN_NODES": ("fog-*", "fog-*"),
    "ASYNC_BUFFER": ("7", 7),
    "MAX_STALENESS": ("0", 0),
    "QUARANTINE_AFTER": ("1", 1),
    "QUARANTINE_ROUNDS": ("2", 2),
    "DRIFT_THRESHOLD": ("0", 0.0),
    "DRIFT_ACTION": ("reset", "reset"),
    "DRIFT_BOOST": ("10", 10.0),
    "SEED": ("7", 7),
}


def test_without_environment_the_contract_defaults_hold():
    settings = Settings.from_env({})
    # The documented contract: Kafka from the host on 9092, numbers on 9999, temperature from -100 to 1000 °C.
    assert settings.kafka_bootstrap_servers == "localhost:9092"
    assert (settings.numbers_host, settings.numbers_port) == ("localhost", 9999)
    temperature, vibration = settings.table
    assert (temperature.name, temperature.low, temperature.high, temperature.factor) == ("temperature", -100, 1000, 1)
    assert (vibration.name, vibration.low, vibration.high, vibration.factor) == ("vibration", 0, 1000, 100)


def test_there_is_another_value_to_try_for_every_setting():
    assert set(ANOTHER_VALUE) == {field.name.upper() for field in fields(Settings)}


@pytest.mark.parametrize("name", ANOTHER_VALUE)
def test_a_variable_sets_its_own_setting_and_no_other(name):
    text, value = ANOTHER_VALUE[name]
    settings = Settings.from_env({name: text})
    changed = {field.name: getattr(settings, field.name) for field in fields(Settings)}
    assert changed.pop(name.lower()) == value
    assert type(getattr(settings, name.lower())) is type(value) or isinstance(value, Path)
    assert changed == {name: getattr(Settings(), name) for name in changed}


@pytest.mark.parametrize("name", ANOTHER_VALUE)
@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_variable_keeps_the_default(name, text):
    assert Settings.from_env({name: text}) == Settings()


def test_spaces_around_a_value_do_not_count():
    assert Settings.from_env({"NUMBERS_PORT": " 4711\n", "NUMBERS_HOST": " producer "}) == Settings(
        numbers_port=4711, numbers_host="producer"
    )


def test_variables_that_are_no_settings_are_ignored():
    assert Settings.from_env({"PATH": "/bin", "numbers_port": "1", "MAX_VALUE": "x"}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("WAIT_TIMEOUT_SECONDS", "soon", "a number of at least 0.1"),
        ("WAIT_TIMEOUT_SECONDS", "0.09", "a number of at least 0.1"),
        ("WAIT_TIMEOUT_SECONDS", "-1", "a number of at least 0.1"),
        ("WAIT_TIMEOUT_SECONDS", "inf", "a number of at least 0.1"),
        ("WAIT_TIMEOUT_SECONDS", "1e999", "a number of at least 0.1"),
        ("WAIT_TIMEOUT_SECONDS", "nan", "a number of at least 0.1"),
        ("WAIT_TIMEOUT_SECONDS", "60 s", "a number of at least 0.1"),
        ("WAIT_TIMEOUT_SECONDS", "1,5", "a number of at least 0.1"),
        ("CLASSES", "1", "a whole number of at least 2 and at most 1000"),
        ("CLASSES", "1001", "a whole number of at least 2 and at most 1000"),
        ("CLASSES", "2.0", "a whole number of at least 2 and at most 1000"),
        ("LABELS", "none", "required or optional"),
        ("MAX_VALUE_BYTES", "0", "a whole number of at least 1"),
        ("MAX_VALUE_BYTES", "1048577", "a whole number of at least 1"),
        ("MAX_OFFSETS_PER_TRIGGER", "1.5", "a whole number of at least 1"),
        ("MAX_OFFSETS_PER_TRIGGER", "1e3", "a whole number of at least 1"),
        ("MAX_UPDATES_PER_TRIGGER", "0", "a whole number of at least 1"),
        ("FETCH_MAX_WAIT_MS", "-1", "a whole number of at least 0 and at most 60000"),
        ("FETCH_MAX_WAIT_MS", "60001", "a whole number of at least 0 and at most 60000"),
        ("TRIGGER_INTERVAL_MS", "-1", "a whole number of at least 0"),
        ("TRIGGER_INTERVAL_MS", "one", "a whole number of at least 0"),
        ("TOPIC_PARTITIONS", "0", "a whole number of at least 1 and at most 1000"),
        ("TOPIC_PARTITIONS", "1001", "a whole number of at least 1 and at most 1000"),
        ("NUMBERS_PORT", "0", "a whole number of at least 1 and at most 65535"),
        ("NUMBERS_PORT", "65536", "a whole number of at least 1 and at most 65535"),
        ("ROUND_MODE", "fast", "sync or async"),
        ("FEATURE_SCALING", "local", "shared or none"),
        ("DRIFT_ACTION", "stop", "none or reset or boost"),
        ("ROUND_QUORUM", "0", "a whole number of at least 1"),
        ("DECISION_THRESHOLD", "1.1", "a number of at least 0 and at most 1"),
        ("NUMBERS_PORT", "0x50", "a whole number of at least 1 and at most 65535"),
    ],
)
def test_a_bad_value_is_refused_with_name_value_and_what_is_expected(name, text, expected):
    with pytest.raises(SettingError) as caught:
        Settings.from_env({name: text})
    assert f"{name} is {text!r}; expected {expected}" in str(caught.value)


def test_a_number_too_large_for_any_limit_is_refused_like_any_other():
    text = "1" + "0" * 400  # more than a float can hold
    with pytest.raises(SettingError, match=r"TOPIC_PARTITIONS is '1000.*expected a whole number"):
        Settings.from_env({"TOPIC_PARTITIONS": text})


def test_a_limit_is_written_out_in_full():
    with pytest.raises(SettingError, match="at most 1048576"):  # 2^20, not 1.04858e+06
        Settings.from_env({"MAX_VALUE_BYTES": "2000000"})


@pytest.mark.parametrize("name", ["TEMPERATURE_MIN_CELSIUS", "TEMPERATURE_MAX_CELSIUS", "VIBRATION_MAX_G"])
def test_a_setting_that_was_replaced_is_refused_with_what_to_write_instead(name):
    with pytest.raises(SettingError) as caught:
        Settings.from_env({name: "50"})
    assert str(caught.value) == (
        f"{name} is no setting any more: write the limits into FEATURES, "
        "such as FEATURES=temperature:-100:1000:1,vibration:0:1000:100"
    )
    assert Settings.from_env({name: " "}) == Settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("FEATURES", "temperature"),
        ("FIELDS", "humidity=h"),
        ("LABEL_RULE", "humidity>1"),
        ("SIMULATED_RANGES", "humidity:0:1"),
    ],
)
def test_a_text_about_features_is_checked_at_once_against_those_there_are(name, text):
    with pytest.raises(SettingError, match=f"{name} is .*; expected"):
        Settings.from_env({name: text})
    if name != "FEATURES":
        assert Settings.from_env({"FEATURES": "humidity:0:100", name: text}).features == "humidity:0:100"


def test_options_are_keyword_arguments_with_numbers_and_truth_values_as_such():
    options = parse_options("STRATEGY_OPTIONS", " eta=0.1, n=3,flag=true , strategy.beta=1e-3,name=FedAvg,empty= ")
    assert options == {"eta": 0.1, "n": 3, "flag": True, "strategy.beta": 1e-3, "name": "FedAvg", "empty": ""}
    assert type(options["n"]) is int
    assert parse_options("MODEL_OPTIONS", "hidden_units=32,16, a=1") == {"hidden_units": "32,16", "a": 1}
    assert parse_options("STRATEGY_OPTIONS", "") == {}


@pytest.mark.parametrize("text", ["eta", "=1", "eta=1,=2"])
def test_options_of_another_form_are_refused(text):
    with pytest.raises(SettingError, match=r"STRATEGY_OPTIONS is '.*'; expected name=value, separated by commas"):
        parse_options("STRATEGY_OPTIONS", text)


def test_given_settings_are_lines_for_a_shell_that_keep_every_character():
    lines = given_settings({"PATH": "/bin", "STRATEGY_OPTIONS": "a=$(rm x) 'y'", "MODEL": ""})
    assert lines == ["export MODEL=''", """export STRATEGY_OPTIONS='a=$(rm x) '"'"'y'"'"''"""]
