"""Check a dataset against what its base model accepts."""
