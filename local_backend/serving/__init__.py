"""A process that answers many requests at once: `python -m local_backend.serving`.

It has one base model in memory and the adapters of several jobs. Each step computes one token of
every answer under way, and a part of the prompts that have just come.
"""
