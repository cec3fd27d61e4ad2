"""The contestants in Python; those in Java are in `bench/rivals/jvm`. Each is a program of its own.

    WORKLOAD --bootstrap HOST:PORT --input TOPIC --output TOPIC --node NAME --parallelism P --state DIR --mode MODE

squares: `{"n":59}` becomes `{"n":59,"square":3481}`. weights: readings become the running mean over all readings of the
node, `{"node_id":...,"weight":(mean temperature + 100 * mean vibration) / 2,"samples":...}`, sent after each poll.
MODE is latency or throughput; the last part of DIR names the run. A contestant starts at the first record.
"""
