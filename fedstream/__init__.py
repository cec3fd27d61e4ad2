"""What the parts of the Edge-Fog-Cloud stack share.

    learning      what a node learns: arrays, models, training, scores
    messages      what is on the topics: readings, weights, rounds
    rounds        when a round closes and what comes out of it: pure, without Spark, Kafka or a clock
    broker        Kafka: clients, options, topics, positions
    spark         Spark: session, sources, state of a job, training, real-time expressions, scoring
    simulation    the same rounds in one process
    stack         is it up, does data move: health, doctor
    commands      fedstream ...
    tables, terminal   tables and help texts in the terminal

Arrows run down: commands -> simulation | spark | stack -> rounds | broker | tables -> messages -> learning -> settings
-> features -> errors. import-linter holds them (pyproject.toml). The job scripts import this package, never each other.
"""
