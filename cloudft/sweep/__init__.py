"""Search hyperparameters: many short jobs, the best of them repeated with other seeds."""
