"""Training behind the endpoint's jobs: real runs on this machine, or a simulated clock."""
