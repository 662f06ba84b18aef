"""Other programs that run a tuned model, as inference sessions: what is served is judged."""
