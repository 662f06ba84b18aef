"""Answers of the base and the tuned model, cached by content."""
