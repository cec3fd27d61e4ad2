"""A short run of the kinds of query that the stack has, in one JVM, which archives the classes that it has loaded.

Needs neither a broker nor a cluster: files stand for topics, and what only those would bring up is loaded by name.
See archive-classes.sh.
"""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

RECORD_DDL = "value STRING, partition INT, offset BIGINT, timestamp TIMESTAMP"
BY_NAME = {  # jars in Spark's folder, and what of them
    "kafka-clients-": ("org/apache/kafka/clients/", "org/apache/kafka/common/"),
    "spark-sql-kafka-": ("org/",),
    "commons-pool2-": ("org/",),
    "spark-core_": tuple(f"org/apache/spark/{part}/" for part in ("deploy", "executor", "scheduler")),
    "spark-sql_": ("org/apache/spark/sql/execution/streaming/",),
}


def write_records(folder: Path) -> None:
    """Write 200 records as a file, the last one bad."""
    folder.mkdir()
    values = [json.dumps({"name": "node-1", "x": number / 7, "label": number % 2}) for number in range(199)]
    place = {"partition": 0, "timestamp": "2026-01-01T00:00:00Z"}
    records = [place | {"value": value, "offset": number} for number, value in enumerate([*values, "bad"])]
    (folder / "records.json").write_text("\n".join(map(json.dumps, records)))


def parse(records: DataFrame) -> DataFrame:
    """Take the records apart, by pattern and as JSON, and keep the reason why one is bad."""
    value = F.col("value")
    parsed = records.withColumn("parsed", F.from_json(value, "name STRING, x DOUBLE, label INT"))
    reason = F.when(F.col("parsed.x").isNull(), F.format_string("got %s", F.substring(value, 1, 100)))
    pieces = F.split(value, '"')
    plain = value.rlike(r"^\{") & (F.length(value) < 1000) & F.get(pieces, F.lit(3)).isNotNull()
    return parsed.select("*", "parsed.*", reason.alias("reason"), plain.alias("plain")).drop("parsed")


def handle_batch(batch: DataFrame, batch_id: int) -> None:
    """Sum, pass groups through Python, and turn rows to JSON, as the jobs do."""
    good = batch.where("reason IS NULL")
    batch.select("value").mapInArrow(lambda parts: parts, "value STRING").collect()
    batch.groupBy("partition").agg(F.count_if("plain"), F.sum("x"), F.coalesce(F.sum("label"), F.lit(0))).collect()
    groups = good.select("partition", "offset", "x", "name").groupBy("partition", "name")

    def same(key: tuple[Any, ...], table: Any) -> Any:
        return table

    groups.applyInArrow(same, "partition INT, offset LONG, x DOUBLE, name STRING").collect()
    batch.where("reason IS NOT NULL").select(F.to_json(F.struct("value", "offset"))).collect()


def run_queries(spark: SparkSession, folder: Path) -> None:
    """Run one query with a handler and one of columns only, until all records are processed."""
    records = parse(spark.readStream.schema(RECORD_DDL).json(str(folder / "records")))
    squares = records.selectExpr("to_json(struct(label, label * label AS square)) AS value")
    writers = [
        records.writeStream.foreachBatch(handle_batch),
        squares.writeStream.format("text").option("path", str(folder / "squares")),
    ]
    for number, writer in enumerate(writers):
        query = writer.option("checkpointLocation", str(folder / f"checkpoint-{number}")).start()
        query.processAllAvailable()
        query.stop()


def ask_page(spark: SparkSession) -> None:
    """Ask the driver's page what the health check asks."""
    context = spark.sparkContext
    url = f"{context.uiWebUrl}/api/v1/applications/{context.applicationId}/executors"
    urllib.request.urlopen(url, timeout=30).close()


def load_by_name(spark: SparkSession) -> int:
    """Load the classes of BY_NAME, without those that need other jars, and return how many there are."""
    assert spark._jvm is not None
    java = spark._jvm.java.lang
    loader = java.Thread.currentThread().getContextClassLoader()
    loaded = 0
    for name, prefixes in BY_NAME.items():
        for jar in Path(os.environ["SPARK_HOME"], "jars").glob(f"{name}*.jar"):
            for entry in zipfile.ZipFile(jar).namelist():
                if entry.startswith(prefixes) and entry.endswith(".class"):
                    try:
                        java.Class.forName(entry.removesuffix(".class").replace("/", "."), False, loader)
                        loaded += 1
                    except Py4JError:
                        pass  # it extends a class of a jar that is not there
    return loaded


def main() -> None:
    """Run it all; the JVM writes the archive when it ends."""
    spark = SparkSession.builder.appName("ArchiveClasses").getOrCreate()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_records(folder / "records")
        run_queries(spark, folder)
    ask_page(spark)
    print(f"{load_by_name(spark)} classes loaded by name")
    spark.stop()


if __name__ == "__main__":
    main()
