"""Write datasets: canonical JSONL with its manifest, splits, mixes, conversions."""
