"""From what users have to the one canonical JSONL that a base model accepts.

`stage.stage` is the way in; read.py, convert.py, split.py and mix.py are its steps.
"""
