"""The design of the course reports on Spark's default options, to have their Table 4.1 beside that of the others.

squares: a DStream of lines from a socket, in batches of one second; its pairs are printed ten at a time as in the
report, and sent to Kafka, too, so that their latency can be told.
weights: means in output mode complete; its handler counts, collects and counts, which are three jobs, and a fourth one
sends the weight. The report's `samples` is the number of rows of the aggregate, so always 1; here the aggregate counts
the readings as well, for a weight to be told from the next. It starts at the newest record, as is the default; only to
catch up on a back-log does it start at the first.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from command_line import Task, options, stop_signal
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.streaming import StreamingContext

BATCH_SECONDS = 1
READING = "sensor_id STRING, temperature DOUBLE, vibration DOUBLE, label INT"


def send(spark: SparkSession, values: Any, task: Task) -> None:
    """Write JSON texts to the output topic with a Spark job."""
    frame = spark.createDataFrame(values, "value STRING")
    frame.write.format("kafka").option("kafka.bootstrap.servers", task.bootstrap).option("topic", task.target).save()


def start_squares(spark: SparkSession, task: Task, socket: str) -> None:
    """Start squaring the numbers that the socket sends."""
    host, _, port = socket.rpartition(":")
    context = StreamingContext(spark.sparkContext, BATCH_SECONDS)
    squares = context.socketTextStream(host, int(port)).map(int).map(lambda n: (n, n**2))
    squares.pprint(num=10)

    def send_pairs(pairs: RDD[tuple[int, int]]) -> None:
        send(spark, pairs.map(lambda pair: (json.dumps({"n": pair[0], "square": pair[1]}),)), task)

    squares.foreachRDD(send_pairs)
    context.start()


def start_weights(spark: SparkSession, task: Task) -> None:
    """Start averaging the readings of a topic; returns when the first offset to read is settled."""
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", task.bootstrap)
        .option("subscribe", task.source)
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

    checkpoint = Path(task.state) / "spark"
    means.writeStream.queryName("report").foreachBatch(send_weight).outputMode("complete").option(
        "checkpointLocation", str(checkpoint)
    ).start()
    deadline = time.monotonic() + 120
    while not (checkpoint / "sources" / "0" / "0").exists():  # where Spark keeps the offsets it starts from
        if time.monotonic() > deadline:
            msg = f"{checkpoint} holds no first offsets after 120 s; see the log above"
            raise click.ClickException(msg)
        time.sleep(0.1)


@click.command(help=__doc__)
@options
@click.option("--socket", help="HOST:PORT that sends the numbers, one a line (squares only).")
def main(socket: str | None, **given: Any) -> None:
    """Start the job and wait for SIGTERM."""
    task, stopping = Task(**given), stop_signal()
    spark = SparkSession.builder.appName("ReportDesign").getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    if task.workload == "squares":
        if not socket:
            raise click.UsageError("--socket is missing; expected HOST:PORT, as squares come from a socket")
        start_squares(spark, task, socket)
    else:
        start_weights(spark, task)
    print("ready", flush=True)
    while not stopping.wait(1.0):
        if task.workload == "weights" and not spark.streams.active:
            raise click.ClickException("the query has ended; see the log above")
    if context := StreamingContext.getActive():
        context.stop(stopSparkContext=False)
    spark.stop()


if __name__ == "__main__":
    main()
