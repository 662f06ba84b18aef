"""Billable resources of an account, their removal, and drift between account and catalogue."""
