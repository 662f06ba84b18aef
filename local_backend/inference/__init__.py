"""Generation, log-likelihoods, lm-eval and export of a job's models."""
