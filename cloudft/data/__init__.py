"""Turn users' data into the canonical JSONL that a base model accepts.

sources/ reads rows, formats/ parses them, checks/ validates them, staging/ writes them;
analysis/ has statistics. `staging.stage.stage_data` and `checks.check.check_data` are the ways in.
"""
