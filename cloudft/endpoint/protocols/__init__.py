"""AWS wire protocols, read and written by botocore's service models."""
