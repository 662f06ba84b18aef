"""The OpenAI-compatible server: requests over HTTP, answered by an engine."""
