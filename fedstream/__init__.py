"""What the parts of the Edge-Fog-Cloud stack share.

A reading's way through the stack, and the module that knows about each step:

    producer/sensor_producer.py   simulates or replays readings     -> topic sensor-data-node-N
    fog/fog_node.py               learns one node's weight          -> topic model-weights
    cloud/aggregator.py           merges the nodes' latest weights  -> topic global-model

    settings   every setting, read once from the environment
    messages   what is on the topics: names, schemas, validation
    model      the maths: running totals, a node's weight, the global weight
    kafka      every option and call of a Kafka client
    streams    the Spark side: session, source, parsing, dead letters
    state      what a job remembers between micro-batches, exactly once
    health     is a service ready? (Compose, local runner, doctor)
    doctor     what is wrong with this machine or this stack, and the remedy
    demo       checks the whole chain on live data and shows it

Arrows point inwards: the job scripts import this package, never each other.
"""
