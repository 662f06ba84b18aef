"""Export of a job's tuned model to the runtimes that people use."""
