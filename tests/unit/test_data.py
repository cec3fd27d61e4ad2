"""Where an experiment's rows come from, and that every row reaches one node."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from fedstream.errors import SettingError, StackError
from fedstream.files.options import FileOptions
from fedstream.files.table import BadRow
from fedstream.settings import Settings
from fedstream.simulation.data import load, split
from fedstream.simulation.partitions import partition, spread

GOOD = "speed,failure,heat\n1.5,no,20\n2,yes,30.25\n-3e1,no,40\n"


@pytest.fixture
def csv_file(tmp_path):
    def write(text):
        path = tmp_path / "machines.csv"
        path.write_text(text)
        return str(path)

    return write


def test_simulated_readings_keep_the_simulators_ranges_decimals_and_rule():
    data = load("sensors", rows=5000, seed=3)
    temperature, vibration = data.x.T
    assert (temperature.min() >= 60, temperature.max() <= 90, len(temperature)) == (True, True, 5000)
    assert (vibration.min() >= 0.02, vibration.max() <= 0.1) == (True, True)
    assert temperature.tolist() == [round(value, 2) for value in temperature.tolist()]
    assert vibration.tolist() == [round(value, 3) for value in vibration.tolist()]
    assert data.y.tolist() == [int(t > 85 or v > 0.08) for t, v in data.x.tolist()]


def test_the_same_seed_gives_the_same_readings_and_another_seed_others():
    first, again, other = (load("sensors", rows=50, seed=seed).x.tobytes() for seed in (1, 1, 2))
    assert first == again != other


def test_a_bundled_data_set_comes_whole_or_as_a_random_part_of_it():
    whole, part = load("breast_cancer"), load("breast_cancer", rows=100, seed=5)
    assert whole.x.tobytes() == load_breast_cancer().data.tobytes()
    assert (whole.classes, whole.labels) == (2, ("malignant", "benign"))
    rows = {tuple(row) for row in whole.x.tolist()}
    assert len({tuple(row) for row in part.x.tolist()} & rows) == 100
    assert 0 < part.y.mean() < 1


@pytest.mark.parametrize(
    ("name", "shape", "classes"), [("digits", (1797, 64), 10), ("wine", (178, 13), 3), ("iris", (150, 4), 3)]
)
def test_the_other_bundled_data_sets_have_their_rows_and_classes(name, shape, classes):
    data = load(name)
    assert (data.x.shape, data.classes, sorted(set(data.y.tolist()))) == (shape, classes, list(range(classes)))


def test_a_csv_file_gives_its_numeric_columns_and_sorted_classes(csv_file):
    data = load(csv_file("\ufeff" + GOOD), "failure")
    assert data.x.tolist() == [[1.5, 20.0], [2.0, 30.25], [-30.0, 40.0]]
    assert (data.y.tolist(), data.labels, data.classes, data.name) == ([0, 1, 0], ("no", "yes"), 2, "machines.csv")


def test_labels_that_are_numbers_are_sorted_as_numbers(csv_file):
    data = load(csv_file("a,b\n1,10\n2,9\n3,2\n"), "b")
    assert (data.labels, data.y.tolist()) == (("2", "9", "10"), [2, 1, 0])


@pytest.mark.parametrize(
    ("text", "label", "words"),
    [
        (GOOD, "speeed", r"label is 'speeed'; expected a column of .*: speed, failure, heat"),
        (GOOD, None, "label is None; expected a column"),
        ("", "failure", r"machines\.csv, line 1: the file is empty; expected a header"),
        ("a,a,b\n1,2,x\n", "b", r"machines\.csv, line 1: column a is there twice"),
        ("a, b,b\n1,2,x\n", "b", r"line 1: column b is there twice"),
        ("failure\nno\nyes\n", "failure", "a feature beside it at least"),
        (GOOD + "1,no\n", "failure", r"machines\.csv, line 5: 2 values; expected 3"),
        (GOOD + "1,5,no,40\n", "failure", r"machines\.csv, line 5: 4 values; expected 3 .*decimal comma"),
        (GOOD + '1,"no,40\n2,yes",50\n', "failure", r"machines\.csv, line 5: .*expected a quote at both ends"),
        (GOOD + '1,"no,40\n2,yes,50\n', "failure", r"machines\.csv, line 5: .*expected a quote at both ends"),
        (GOOD + '1,no,"40"1\n', "failure", r"machines\.csv, line 5: .*expected a quote at both ends"),
        (GOOD + ",no,1\n", "failure", r"line 5: speed is ''; expected a finite number"),
        (GOOD + "1,no,NaN\n", "failure", r"line 5: heat is 'NaN'"),
        (GOOD + "1,no,inf\n", "failure", r"line 5: heat is 'inf'"),
        (GOOD + "1,no,warm\n", "failure", r"line 5: heat is 'warm'"),
        (GOOD + "1,no,1_000\n", "failure", r"line 5: heat is '1_000'"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_refused_with_line_and_column(csv_file, text, label, words):
    with pytest.raises(StackError, match=words):
        load(csv_file(text), label)


MISSING = ("", "NA", "na", "N/A", "#N/A", "null", "NULL", "None", "?", "-", "nan", "NaN")


@pytest.mark.parametrize("missing", [*MISSING, " NA ", '" ? "'])
def test_a_missing_label_is_refused_however_it_is_written_or_its_row_left_out(csv_file, missing, capsys):
    file = csv_file(f"{GOOD}3,{missing},50\n4,NA,60\n")
    with pytest.raises(BadRow) as caught:
        load(file, "failure")
    told = missing.strip('" ')
    assert f"machines.csv, line 5: failure is {told!r}; expected a label: fill in or leave out" in str(caught.value)
    data = load(file, "failure", file=FileOptions(on_bad_row="skip"))
    assert (data.labels, data.y.tolist()) == (("no", "yes"), [0, 1, 0])
    assert f"2 bad rows left out, such as\n  {file}, line 5: failure is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second"),
    [("0", "0.0"), ("1.0", "1"), ("False", "FALSE"), ("yes", "Yes"), ("é", "É"), ("-0", "0"), ("1e1", "10")],
)
def test_one_label_in_two_spellings_is_one_class_of_the_first_spelling(csv_file, first, second):
    data = load(csv_file(f"a,b\n1,{first}\n2,x\n3,{first}\n4,{second}\n5,{second}\n"), "b")
    assert sorted(data.labels) == sorted([first, "x"])
    assert [data.labels[place] for place in data.y] == [first, "x", first, first, first]


def test_labels_that_differ_in_more_than_their_spelling_are_classes(csv_file):
    # Text before letters of lower case, as text is sorted; a class of the name "no failure" is none that is missing.
    data = load(csv_file("a,b\n1,no failure\n2,1\n3,10\n4,True\n5,--\n6,no failure\n"), "b")
    assert data.labels == ("1", "10", "--", "True", "no failure")
    assert data.y.tolist() == [4, 0, 1, 3, 2, 4]


MACHINES = "".join(f"{i},P{i % 2},{i * i % 7}.5,{2000 + i},{i % 3 // 2}\n" for i in range(1, 31))
HEADER = "UDI,Product ID,Air [K],year,failed\n"


def test_texts_and_counters_of_rows_are_no_features_and_are_kept_by_name(csv_file, capsys):
    data = load(csv_file(HEADER + MACHINES), "failed")
    # UDI counts 1, 2, 3 … and year 2001, 2002 …
    assert data.features == ("Air [K]",)
    assert data.x[:4].tolist() == [[1.5], [4.5], [2.5], [2.5]]
    assert {name: values[:3].tolist() for name, values in data.columns.items()} == {
        "UDI": ["1", "2", "3"],
        "Product ID": ["P1", "P0", "P1"],
        "year": ["2001", "2002", "2003"],
    }
    said = capsys.readouterr().err
    assert "left out: UDI (it counts the rows; --only takes it), Product ID (no numbers), year (it counts" in said


def test_columns_are_chosen_or_left_out_by_name(csv_file):
    file = csv_file(HEADER + MACHINES)
    assert load(file, "failed", file=FileOptions(only=("UDI", "Air [K]"))).features == ("UDI", "Air [K]")
    with pytest.raises(StackError, match="expected a column of numbers at least, beside failed"):
        load(file, "failed", file=FileOptions(leave_out=("Air [K]",)))
    with pytest.raises(StackError, match=r"line 2: Product ID is 'P1'; expected a finite number"):
        load(file, "failed", file=FileOptions(only=("Product ID",)))
    with pytest.raises(StackError, match=r"no column 'Air' to leave out or to use; .* has 'UDI', 'Product ID'"):
        load(file, "failed", file=FileOptions(leave_out=("Air",)))


def test_a_column_without_a_name_is_no_feature(csv_file, capsys):
    data = load(csv_file(",heat,failure\n0,20,no\n1,30.25,yes\n2,40,no\n"), "failure")
    assert (data.features, data.columns[""].tolist()) == (("heat",), ["0", "1", "2"])
    assert "left out: the first column (without a name: a row number?)" in capsys.readouterr().err


def test_a_column_is_found_by_name_also_in_a_part_of_the_rows(csv_file):
    data = load(csv_file(HEADER + MACHINES), "failed").take(np.array([3, 0]))
    assert data.column("Product ID").tolist() == ["P0", "P1"]
    assert data.column("Air [K]").tolist() == ["2.5", "1.5"]
    with pytest.raises(SettingError, match=r"no column 'Type'; machines\.csv has 'UDI', 'Product ID', 'year', 'Air"):
        data.column("Type")


def test_several_files_are_one_data_set_with_a_column_of_their_names(csv_file, tmp_path):
    csv_file(GOOD)
    (tmp_path / "presses.csv").write_text("speed;failure;heat\n4,5;yes;50\n")
    data = load(f"{tmp_path}/*.csv", "failure")
    assert data.x.tolist() == [[1.5, 20.0], [2.0, 30.25], [-30.0, 40.0], [4.5, 50.0]]
    assert data.column("file").tolist() == ["machines", "machines", "machines", "presses"]
    (tmp_path / "presses.csv").write_text("speed,room,failure,heat\n4,7,yes,50\n")
    for choice in ({"leave_out": ("room",)}, {"only": ("speed", "heat")}):
        assert load(f"{tmp_path}/*.csv", "failure", file=FileOptions(**choice)).features == ("speed", "heat")
    with pytest.raises(
        StackError, match=r"presses\.csv has .* speed, room, heat; .*: choose with --leave-out or --only"
    ):
        load(f"{tmp_path}/*.csv", "failure")
    (tmp_path / "presses.csv").write_text("speed,failure\n4.5,yes\n")
    with pytest.raises(StackError, match=r"presses\.csv has the columns of numbers speed; expected speed, heat, as in"):
        load(f"{tmp_path}/*.csv", "failure")


def test_a_column_that_grows_falls_or_stays_is_told_whichever_rows_are_chosen(csv_file):
    rows = "".join(f"{1e12 + i * 9000 + i % 2:.0f},{100 - i * i},7,{i % 4},{i % 3 // 2}\n" for i in range(30))
    file = csv_file("ts,left [h],room,heat,failed\n" + rows)
    remarks = load(file, "failed").remarks
    assert [remark.partition(";")[0] for remark in remarks] == [
        f"column {name} {what} from each row to the next, as a time or a meter: a model may learn when something was, "
        "and not why"
        for name, what in (("ts", "grows"), ("left [h]", "falls"))
    ] + ["column room is 7 in each row, so nothing is learned from it"]
    assert [remark.partition("; ")[2] for remark in remarks] == [
        f"leave it out: --leave-out {name}" for name in ("ts", "'left [h]'", "room")
    ]
    assert load(file, "failed", rows=12).remarks == remarks
    assert load(file, "failed", file=FileOptions(leave_out=("ts", "left [h]", "room"))).remarks == ()


def test_a_column_of_several_files_is_told_if_it_grows_in_each_or_is_the_same_in_all(tmp_path):
    def write(*moves):
        for name, (start, room, step) in zip("ab", moves, strict=True):
            rows = "".join(f"{start + step * i},{room},{i % 4},{i % 3 // 2}\n" for i in range(15))
            (tmp_path / f"{name}.csv").write_text("ts,room,heat,failed\n" + rows)
        return [remark.split()[1] for remark in load(f"{tmp_path}/*.csv", "failed").remarks]

    assert write((1000, 7, 5), (500, 7, 3)) == ["ts", "room"]
    assert write((1000, 7, 5), (500, 8, -3)) == []


def test_a_column_of_few_rows_may_grow_by_accident(csv_file):
    assert load(csv_file(GOOD), "failure").remarks == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("brest_cancer",), "data is 'brest_cancer'; expected sensors, breast_cancer.* or a file: .*does not exist"),
        (("iris", "species"), "iris has its own labels"),
        (("iris", None, 151), "rows is 151; expected at most 150"),
        (("sensors", None, 0), "rows is 0; expected at least 1"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(arguments, words):
    with pytest.raises(SettingError, match=words):
        load(*arguments)


def test_held_out_rows_are_a_quarter_of_every_class_and_no_training_rows():
    data = load("digits")
    train, test = split(data, 0.25, seed=2)
    assert len(train.y) + len(test.y) == len(data.y)
    shares = np.bincount(test.y) / np.bincount(data.y)
    assert shares == pytest.approx(np.full(10, 0.25), abs=0.005)
    rows = sorted(map(tuple, [*train.x.tolist(), *test.x.tolist()]))
    assert rows == sorted(map(tuple, data.x.tolist()))


def test_a_class_of_one_row_cannot_be_split(csv_file):
    with pytest.raises(SettingError, match=r"machines\.csv cannot be split"):
        split(load(csv_file(GOOD), "failure"))


Y = load("digits").y


@pytest.mark.parametrize("how", ["iid", "dirichlet:0.5", "dirichlet:0.1", "shards:2", "shards:10"])
@pytest.mark.parametrize("nodes", [5, 10, 40])
def test_every_row_goes_to_one_node_and_every_node_has_two(how, nodes):
    parts = partition(Y, nodes, how, seed=4)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(Y)))
    assert (len(parts), min(map(len, parts)) >= 2) == (nodes, True)
    again, other = (np.concatenate(partition(Y, nodes, how, seed)).tolist() for seed in (4, 5))
    assert np.concatenate(parts).tolist() == again != other


def test_even_a_hundred_nodes_with_few_rows_have_two_each():
    parts = partition(load("breast_cancer").y[:426], 100, "dirichlet:0.1", seed=1)
    assert min(map(len, parts)) == 2
    assert sum(map(len, parts)) == 426


def test_iid_nodes_have_as_many_rows_and_about_the_same_classes():
    parts = partition(Y, 5, "iid", seed=1)
    assert {len(part) for part in parts} <= {359, 360}
    assert all(np.bincount(Y[part], minlength=10).min() > 15 for part in parts)


def test_a_smaller_alpha_makes_nodes_less_alike():
    def largest_share(how):
        return np.mean([np.bincount(Y[part]).max() / len(part) for part in partition(Y, 10, how, seed=1)])

    shares = [largest_share(how) for how in ("iid", "dirichlet:1", "dirichlet:0.1")]
    assert shares == sorted(shares)
    assert shares[0] < 0.2 < 0.4 < shares[2]


def test_a_dirichlet_share_has_the_mean_and_variance_of_its_distribution():
    y, nodes, alpha = np.zeros(100, dtype=np.int64), 4, 2.0
    shares = np.array(
        [[len(part) / 100 for part in partition(y, nodes, f"dirichlet:{alpha}", seed)] for seed in range(400)]
    )
    mean = 1 / nodes
    assert shares.mean(axis=0) == pytest.approx([mean] * nodes, abs=0.02)
    assert shares.var(axis=0) == pytest.approx([mean * (1 - mean) / (nodes * alpha + 1)] * nodes, rel=0.2)


@pytest.mark.parametrize(("classes", "nodes"), [(1, 10), (1, 23), (2, 7), (3, 20), (10, 4)])
def test_shards_give_each_node_that_many_classes(classes, nodes):
    parts = partition(Y, nodes, f"shards:{classes}", seed=2)
    assert {len(set(Y[part].tolist())) for part in parts} == {classes}


@pytest.mark.parametrize(
    "how", ["", "iid:1", "dirichlet", "dirichlet:0", "dirichlet:nan", "shards:1.5", "shards:0", "shift:x", "by-day"]
)
def test_an_unknown_partition_is_refused(how):
    with pytest.raises(SettingError, match=r"expected iid, dirichlet:ALPHA .* shards:K .* shift:C"):
        partition(Y, 2, how)


@pytest.mark.parametrize(
    ("nodes", "how", "words"),
    [
        (0, "iid", "nodes is 0; expected from 1 to 898"),
        (899, "iid", "nodes is 899; expected from 1 to 898"),
        (2, "shards:11", "expected shards:5 to shards:10 for 2 nodes"),
        (2, "shards:4", "expected shards:5 to shards:10 for 2 nodes"),
    ],
)
def test_a_partition_with_too_few_rows_or_classes_is_refused(nodes, how, words):
    with pytest.raises(SettingError, match=words):
        partition(Y, nodes, how)


def test_shards_of_classes_too_small_for_their_nodes_are_refused():
    y = np.array([0] * 58 + [1] * 2)
    with pytest.raises(SettingError, match="a node has less than 2 rows"):
        partition(y, 10, "shards:1")


def test_shifted_nodes_measure_more_and_are_labelled_by_what_they_measure():
    plain, shifted = (spread(*split(load("sensors", rows=900)), 3, how) for how in ("iid", "shift:15"))
    for i, (rows, held_out) in enumerate(zip(shifted.parts, shifted.test_parts, strict=True)):
        for before, after, part in ((plain.train, shifted.train, rows), (plain.test, shifted.test, held_out)):
            assert after.x[part, 0] - before.x[part, 0] == pytest.approx(np.full(len(part), 15.0 * i))
            assert after.x[part, 1].tolist() == before.x[part, 1].tolist()
            assert after.y[part].tolist() == [int(t > 85 or v > 0.08) for t, v in after.x[part].tolist()]


def test_simulated_readings_have_the_features_classes_and_labels_of_the_settings():
    settings = Settings(
        features="speed:0:3000,heat:-40:120,load:0:0.01",
        simulated_ranges="speed:1200:1800",
        label_rule="speed>1700 or heat<0",
        classes=3,
    )
    data = load("sensors", rows=3000, seed=3, settings=settings)
    assert (data.x.shape, data.classes, data.labels) == ((3000, 3), 3, ("0", "1", "2"))
    # Of 3000 uniform draws one is within a tenth of the range from either end: all but surely.
    for column, low, high, decimals in zip(
        data.x.T.tolist(), (1200, -40, 0), (1800, 120, 0.01), (2, 2, 3), strict=True
    ):
        assert low <= min(column) < low + (high - low) / 10
        assert high >= max(column) > high - (high - low) / 10
        assert column == [round(value, decimals) for value in column]
    assert data.y.tolist() == [int(speed > 1700) + int(heat < 0) for speed, heat, _ in data.x.tolist()]
    shifted = spread(*split(data), 2, "shift:250")
    x, y = shifted.train.x[shifted.parts[1]], shifted.train.y[shifted.parts[1]]
    assert 1450 <= x[:, 0].min() < 1800 < x[:, 0].max() <= 2050
    assert y.tolist() == [int(speed > 1700) + int(heat < 0) for speed, heat, _ in x.tolist()]


def test_only_simulated_readings_can_be_shifted():
    with pytest.raises(SettingError, match=r"partition is 'shift:3'.*sensors; got iris"):
        spread(*split(load("iris")), 2, "shift:3")
