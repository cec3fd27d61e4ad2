"""What the parts of the Edge-Fog-Cloud stack share.

    producer/sensor_producer.py   simulates or replays readings     -> topic sensor-data-node-N
    fog/fog_node.py               running weight; trained models    -> topic model-weights
    cloud/aggregator.py           merges them, opens the next round -> topic global-model, back to the fog nodes

    the stack       settings, messages, state (what a job remembers, exactly once), kafka (every client option), streams
                    (the Spark side), model (the running weight), watchdog (what ends a driver that cannot go on),
                    reset, health, parts and processes (what runs, and how well), doctor, demo
    learning        models, training (scale, score, train), metrics, arrays (on the wire)
    rounds          protocol (messages), trainer (the fog's query), rounds (when one closes), admission (which update
                    counts), snapshot (as JSON and back), drift
    strategies      strategies (Flower behind one adapter), strategy_options, strategy_state
    commands        cli, commands, watch, analysis, curves, export; registry (versions and scores), terminal, console
    simulation      simulate (the same rounds in one process), scenario, data, rows, partitions

Arrows point inwards: the job scripts import this package, never each other. Rounds know no Spark, no Kafka, no clock.
"""
