"""Readings in bulk, on the executors: Arrow batches of plain JSON in, a few sums out.

Nearly all records are plain: in the very form in which sensors send, and good. Arrow's own regular expression and
readers take those apart in a fraction of the time that Spark's expressions take. Any other record is `odd`: it is left
to `streams.parse_readings`, which knows every form and tells what is wrong.
"""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from fedstream.messages import FEATURES, PLAIN_READING
from fedstream.model import Totals
from fedstream.settings import Settings

_SUMS = {"node": pa.int32(), "count": pa.int64(), "rejected": pa.int64(), "odd": pa.int64()} | {
    f"sum_{name}": pa.float64() for feature in FEATURES for name in (feature, f"squared_{feature}")
}
_RECORD = {"value": pa.binary(), "topic": pa.string(), "partition": pa.int32(), "offset": pa.int64()}
SCHEMA = pa.schema(_SUMS | _RECORD)
_HEADS = tuple(f'"{name}":' for name in FEATURES)
RECORD = (*_RECORD, "node")  # what of a record comes in, and of an odd one goes out


def take_apart(values: pa.Array, settings: Settings) -> tuple[pa.BooleanArray, pa.Table]:
    """Return which of the values (binary) are plain and good readings, and these readings: sensor_id and FEATURES."""
    is_short = pc.less_equal(pc.binary_length(values), settings.max_value_bytes)
    is_plain = pc.fill_null(pc.and_(is_short, pc.match_substring_regex(values, PLAIN_READING)), False)
    schema = pa.schema([("sensor_id", pa.string()), *((name, pa.float64()) for name in FEATURES)])
    plain = _where(is_plain, values)
    if not len(plain):
        return is_plain, schema.empty_table()
    lines = pc.binary_join_element_wise(plain, b"\n", b"").buffers()[2]  # a plain reading holds no end of a line
    try:
        readings = _cut(lines, plain[0].as_py().count(b","))
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


def _cut(lines: pa.Buffer, commas: int) -> pa.Table:
    """Return what `take_apart` returns of lines of plain readings, cut at the commas: a third of JSON's cost.

    Raises:
        pa.ArrowInvalid: a line has spaces, a comma in its sensor's name, or another number of commas than given.
    """
    if commas not in (3, 4):  # with and without event_time; more of them would be of the sensor's name
        raise pa.ArrowInvalid(f"{commas} commas")
    table = pyarrow.csv.read_csv(
        pa.BufferReader(lines),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=lines.size, column_names=list(map(str, range(commas + 1)))
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=",", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=["0", "1", "2"], column_types=dict.fromkeys("012", pa.string()), check_utf8=False
        ),
    )
    # A comma in the name leaves a quote in the second column, and a space a blank: neither is a number then.
    names, *numbers = (
        pc.utf8_slice_codeunits(table.column(i), len(head)) for i, head in enumerate(('{"sensor_id":"', *_HEADS))
    )
    columns = {"sensor_id": pc.utf8_slice_codeunits(names, 0, -1)}
    return pa.table(columns | {name: text.cast(pa.float64()) for name, text in zip(FEATURES, numbers, strict=True)})


def _where(mask: pa.BooleanArray, rows: Any) -> Any:
    """Return the rows (an array or a table) for which the mask is true; most often all, which needs no copy."""
    return rows if mask.true_count == len(mask) else rows.filter(mask)


def _without_sums(records: pa.RecordBatch) -> pa.RecordBatch:
    """Return records (RECORD) as rows of SCHEMA that hold no sums."""
    columns = [
        records.column(field.name) if field.name in RECORD else pa.nulls(len(records), field.type) for field in SCHEMA
    ]
    return pa.record_batch(columns, schema=SCHEMA)


@functools.cache
def spare_imports(modules: int) -> None:
    """Take what a worker has imported, so many modules by now, out of its garbage collection.

    Spark starts that after each task, and it takes 60 ms of CPU time for what stays anyway.
    """
    gc.freeze()


@dataclass(frozen=True)
class Plain:
    """What an executor needs for a node's records (value, node): the limits, and whose the sensors of a topic are.

    `sensors` is None where each record's `node` is known; else it is told by the reading's sensor, and readings of
    other sensors are nobody's.
    """

    settings: Settings
    sensors: Mapping[str, int] | None = None

    def sum_up(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Reduce the plain readings to one row a node, and pass on the odd records: batches of SCHEMA.

        An odd record leaves the sums empty (null), and a sum the record. A row of no node counts the odd ones.
        """
        spare_imports(len(sys.modules))
        totals: dict[int, Totals] = {}
        odd = 0
        for batch in batches:
            is_plain, readings = take_apart(batch.column("value"), self.settings)
            for node, more in self._totals(_where(is_plain, batch.column("node")), readings):
                totals[node] = totals.get(node, Totals()) + more
            if is_plain.true_count < len(batch):
                left = batch.filter(pc.invert(is_plain))
                odd += len(left)
                yield _without_sums(left)
        rows = [{"node": node, "odd": 0} | asdict(found) for node, found in totals.items()]
        yield pa.RecordBatch.from_pylist([*rows, {"odd": odd} | asdict(Totals())], schema=SCHEMA)

    def _totals(self, nodes: pa.Array, readings: pa.Table) -> Iterator[tuple[int, Totals]]:
        if self.sensors is not None:
            places = pc.index_in(
                readings.column("sensor_id").combine_chunks(), pa.array(list(self.sensors), pa.string())
            )
            nodes = pc.take(pa.array(list(self.sensors.values()), pa.int32()), places)
        for node in pc.unique(nodes).drop_null().to_pylist():
            own = _where(pc.fill_null(pc.equal(nodes, node), False), readings)
            x, y = (own.column(name).to_numpy() for name in FEATURES)
            yield node, Totals(len(x), float(x.sum()), float(y.sum()), float(x @ x), float(y @ y))
