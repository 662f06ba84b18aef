"""Read rows from files, folders, globs and S3: JSONL, CSV, Parquet, text."""
