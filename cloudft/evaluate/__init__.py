"""Did it help: base against tuned on the same records, and what to make of it."""
