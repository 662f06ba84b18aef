"""Bedrock's operations on the endpoint, control plane and runtime."""
