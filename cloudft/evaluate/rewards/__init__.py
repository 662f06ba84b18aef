"""Measure a grader: what its rewards say about whether reinforcement can work."""
