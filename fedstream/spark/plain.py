"""Readings in bulk, on the executors: Arrow batches of plain JSON in, a few sums out.

Nearly all records are plain: in the very form in which sensors send, and good. Arrow's own regular expression and
readers take those apart in a fraction of the time that Spark's expressions take. Any other record is `odd`: it is left
to `streams.parse_readings`, which knows every form and tells what is wrong.
"""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from fedstream.messages.readings import FEATURES, PLAIN_READING
from fedstream.messages.topics import node_of_topic
from fedstream.messages.weights import RunningSums
from fedstream.settings import Settings

# Bytes of a value that comes here. Spark gathers 50,000 records for Python, however long they are: its check of bytes
# would take a quarter of all CPU time (docs/performance.md). A longer one stays where it is, and so is null here.
LONGEST = 1024
_COUNTS = {"node": pa.int32(), "count": pa.int64(), "rejected": pa.int64(), "odd": pa.int64(), "withheld": pa.int64()}
_SUMS = {f"sum_{name}": pa.float64() for feature in FEATURES for name in (feature, f"squared_{feature}")}
# Of a record, what comes in, and goes out if it is odd.
RECORD = {"value": pa.binary(), "topic": pa.string(), "partition": pa.int32(), "offset": pa.int64()}
SCHEMA = pa.schema(_COUNTS | _SUMS | RECORD)
FIELDS = ("sensor_id", *FEATURES)  # of a reading
_HEADS = {name: f'"{name}":' for name in FIELDS} | {"sensor_id": '{"sensor_id":"'}  # of a line cut at its commas


def take_apart(
    values: pa.Array, settings: Settings, fields: Collection[str] = FIELDS
) -> tuple[pa.BooleanArray, pa.Table]:
    """Return which of the values (binary) are plain and good readings, and these fields (FEATURES at least) of them."""
    is_short = pc.less_equal(pc.binary_length(values), settings.max_value_bytes)
    is_plain = pc.fill_null(pc.and_(is_short, pc.match_substring_regex(values, PLAIN_READING)), False)
    schema = pa.schema({name: pa.float64() if name in FEATURES else pa.string() for name in fields})
    plain = _where(is_plain, values)
    if not len(plain):
        return is_plain, schema.empty_table()
    lines = pc.binary_join_element_wise(plain, b"\n", b"").buffers()[2]  # a plain reading holds no end of a line
    try:
        readings = _cut(lines, plain[0].as_py().count(b","), schema)
    except pa.ArrowInvalid:
        readings = pyarrow.json.read_json(
            pa.BufferReader(lines),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=lines.size),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    temperature, vibration = (readings.column(name).to_numpy() for name in FEATURES)
    low, high = settings.temperature_min_celsius, settings.temperature_max_celsius
    is_good = pa.array(
        (low <= temperature) & (temperature <= high) & (vibration >= 0) & (vibration <= settings.vibration_max_g)
    )
    return pc.replace_with_mask(is_plain, is_plain, is_good), _where(is_good, readings)


def _cut(lines: pa.Buffer, commas: int, schema: pa.Schema) -> pa.Table:
    """Return what `take_apart` returns of lines of plain readings, cut at the commas: a third of JSON's cost.

    Raises:
        pa.ArrowInvalid: a line has spaces, a comma in its sensor's name, or another number of commas than given.
    """
    if commas not in (3, 4):  # with and without event_time; more of them would be of the sensor's name
        raise pa.ArrowInvalid(f"{commas} commas")
    table = pyarrow.csv.read_csv(
        pa.BufferReader(lines),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=lines.size, column_names=[*FIELDS, "label", "event_time"][: commas + 1]
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=",", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=schema.names, column_types=dict.fromkeys(schema.names, pa.string()), check_utf8=False
        ),
    )

    def value(name: str) -> pa.ChunkedArray:
        text = pc.binary_replace_slice(table.column(name), 0, len(_HEADS[name]), "")
        # A comma in the name leaves a quote in the next column, and a space a blank: neither is a number then.
        return text.cast(pa.float64()) if name in FEATURES else pc.utf8_slice_codeunits(text, 0, -1)

    return pa.table({name: value(name) for name in schema.names})


def _where(mask: pa.BooleanArray, rows: Any) -> Any:
    """Return the rows (an array or a table) for which the mask is true; most often all, which needs no copy."""
    return rows if mask.true_count == len(mask) else rows.filter(mask)


def _without_sums(records: pa.RecordBatch) -> pa.RecordBatch:
    """Return records (RECORD) as rows of SCHEMA that hold no sums."""
    columns = [
        records.column(field.name) if field.name in RECORD else pa.nulls(len(records), field.type) for field in SCHEMA
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _columns(totals: RunningSums) -> dict[str, float]:
    sums = {f"sum_{name}": value for name, value in zip(FEATURES, totals.sums, strict=True)}
    squares = {f"sum_squared_{name}": value for name, value in zip(FEATURES, totals.squares, strict=True)}
    return {"count": totals.count, "rejected": totals.rejected} | sums | squares


@functools.cache
def spare_imports(modules: int) -> None:
    """Take what a worker has imported, so many modules by now, out of its garbage collection.

    Spark starts that after each task, and it takes 60 ms of CPU time for what stays anyway.
    """
    gc.freeze()


@dataclass(frozen=True)
class Plain:
    """What an executor needs for nodes' records: the limits, and whose the sensors of a shared topic are.

    `sensors` is None where a record's topic tells its node; else the reading's sensor does. Others are nobody's.
    """

    settings: Settings
    sensors: Mapping[str, int] | None = None

    def sum_up(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Reduce the plain readings to one row a node, and pass on the odd records: batches of SCHEMA.

        An odd record leaves the sums empty (null), and a sum the record. A row of no node counts the odd ones, and
        those among them whose value is withheld.
        """
        spare_imports(len(sys.modules))
        fields = FEATURES if self.sensors is None else FIELDS
        totals: dict[int, RunningSums] = {}
        odd = withheld = 0
        for batch in batches:
            is_plain, readings = take_apart(batch.column("value"), self.settings, fields)
            for node, more in self._totals(_where(is_plain, batch.column("topic")), readings):
                totals[node] = totals.get(node, RunningSums()) + more
            if is_plain.true_count < len(batch):
                left = batch.filter(pc.invert(is_plain))
                odd += len(left)
                withheld += left.column("value").null_count
                yield _without_sums(left)
        rows = [{"node": node, "odd": 0} | _columns(found) for node, found in totals.items()]
        counts = {"odd": odd, "withheld": withheld} | _columns(RunningSums(0, (0.0,) * 2, (0.0,) * 2))
        yield pa.RecordBatch.from_pylist([*rows, counts], schema=SCHEMA)

    def _totals(self, topics: pa.Array, readings: pa.Table) -> Iterator[tuple[int, RunningSums]]:
        if self.sensors is None:
            names, known = topics, {topic: node_of_topic(topic) for topic in pc.unique(topics).to_pylist()}
        else:
            names, known = readings.column("sensor_id").combine_chunks(), dict(self.sensors)
        places = pc.index_in(names, pa.array(list(known), pa.string()))
        nodes = pc.take(pa.array(list(known.values()), pa.int32()), places)
        for node in pc.unique(nodes).drop_null().to_pylist():
            own = _where(pc.fill_null(pc.equal(nodes, node), False), readings)
            x, y = (own.column(name).to_numpy() for name in FEATURES)
            yield node, RunningSums(len(x), (float(x.sum()), float(y.sum())), (float(x @ x), float(y @ y)))
