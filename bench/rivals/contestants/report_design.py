"""The design of the course reports on Spark's default options, to have their Table 4.1 beside that of the others.

squares: a DStream of lines from a socket, in batches of one second; its pairs are printed ten at a time as in the
report, and sent to Kafka, too, so that their latency can be told.
weights: means in output mode complete; its handler counts, collects and counts, which are three jobs, and a fourth one
sends the weight. The report's `samples` is the number of rows of the aggregate, so always 1; here the aggregate counts
the readings as well, for a weight to be told from the next. It starts at the newest record, as is the default; only to
catch up on a back-log does it start at the first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.streaming import StreamingContext

BATCH_SECONDS = 1
READING = "sensor_id STRING, temperature DOUBLE, vibration DOUBLE, label INT"


def send(spark: SparkSession, values: Any, task: argparse.Namespace) -> None:
    """Write JSON texts to the output topic with a Spark job."""
    frame = spark.createDataFrame(values, "value STRING")
    frame.write.format("kafka").option("kafka.bootstrap.servers", task.bootstrap).option("topic", task.output).save()


def start_squares(spark: SparkSession, task: argparse.Namespace) -> Callable[[], object]:
    """Start squaring the numbers that the socket sends; return what waits for the end."""
    host, _, port = task.socket.rpartition(":")
    context = StreamingContext(spark.sparkContext, BATCH_SECONDS)
    squares = context.socketTextStream(host, int(port)).map(int).map(lambda n: (n, n**2))
    squares.pprint(num=10)

    def send_pairs(pairs: RDD[tuple[int, int]]) -> None:
        send(spark, pairs.map(lambda pair: (json.dumps({"n": pair[0], "square": pair[1]}),)), task)

    squares.foreachRDD(send_pairs)
    context.start()
    return context.awaitTermination


def start_weights(spark: SparkSession, task: argparse.Namespace) -> Callable[[], object]:
    """Start averaging the readings of a topic, the first offset to read settled; return what waits for the end."""
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", task.bootstrap)
        .option("subscribe", task.input)
        .option("startingOffsets", "latest" if task.mode == "latency" else "earliest")
        .load()
    )
    readings = records.select(F.from_json(F.col("value").cast("string"), READING).alias("data")).select("data.*")
    means = readings.groupBy().agg(
        F.avg("temperature").alias("temperature"), F.avg("vibration").alias("vibration"), F.count("*").alias("samples")
    )

    def send_weight(batch: DataFrame, batch_id: int) -> None:
        if batch.count() == 0:
            return
        row = batch.collect()[0]
        weight = ((row.temperature or 0) + 100 * (row.vibration or 0)) / 2
        message = {"node_id": task.node, "weight": round(weight, 4), "rows": batch.count(), "samples": row.samples}
        if row.samples:
            send(spark, [(json.dumps(message),)], task)

    query = (
        means.writeStream.queryName("report")
        .foreachBatch(send_weight)
        .outputMode("complete")
        .option("checkpointLocation", f"{task.state}/spark")
        .start()
    )
    if task.mode == "latency":
        query.processAllAvailable()  # nothing: but then it is settled which reading is the newest
    return query.awaitTermination


def main() -> None:
    """Start the job, say `ready`, and run until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=("squares", "weights"))
    for name in ("bootstrap", "input", "output", "node", "parallelism", "state", "mode"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--socket", help="HOST:PORT that sends the numbers, one a line (squares only)")
    task = parser.parse_args()
    spark = SparkSession.builder.appName("ReportDesign").getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    start = {"squares": start_squares, "weights": start_weights}[task.workload]
    wait = start(spark, task)
    print("ready", flush=True)
    wait()


if __name__ == "__main__":
    main()
