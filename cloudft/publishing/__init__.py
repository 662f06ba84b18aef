"""A tuned model for others: its facts, model card, bill of materials, and the Hub."""
