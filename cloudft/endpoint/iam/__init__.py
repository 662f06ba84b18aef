"""IAM on the endpoint: evaluate policies, and authorize jobs by them."""
