"""Merged open-weight models in Bedrock: Custom Model Import jobs, and asking what they made."""
