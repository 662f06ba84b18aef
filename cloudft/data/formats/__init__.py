"""Record formats: parse each into one record type, and write it."""
