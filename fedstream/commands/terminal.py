"""The options that several commands have."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from fedstream.learning.scores import MEASURES

run_option = click.option("--run", "run_id", help="The run's name.  [default: the newest run]")
metric_option = click.option(
    "--metric",
    default="f1",
    show_default=True,
    type=click.Choice([measure.name for measure in MEASURES]),
    help="What the best version is best in.",
)
json_option = click.option("--json", "is_json", is_flag=True, help="Print JSON, for scripts.")
output_option = partial(
    click.option,
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the rows to this file: *.csv, *.parquet or *.jsonl",
)
