"""The training run: loop, loss, checkpoints, curves, artifacts, probe."""
