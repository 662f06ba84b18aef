"""Curves of jobs at any length: read as they grow, sampled, and reduced to what a picture shows."""
