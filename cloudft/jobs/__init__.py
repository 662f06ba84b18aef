"""The life of a job over any backend: prepare, submit, wait, list, import."""
