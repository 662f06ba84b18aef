"""The fast training path: packed records, fused operations."""
