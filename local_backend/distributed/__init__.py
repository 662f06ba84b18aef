"""Several processes on one job: collectives, sharded weights."""
