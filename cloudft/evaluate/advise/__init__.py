"""Should you fine-tune at all: each method measured on the same held-out records, and a word."""
