"""Staged records as token ids: chat template, tokenization, batches."""
