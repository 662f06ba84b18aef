"""The engine that answers many requests at once, and what is served from it."""
