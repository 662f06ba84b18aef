"""Statistics of a dataset: duplicates, leakage, personal data, lengths, labels."""
