"""AWS's wire protocols: requests parsed, responses serialized, callers identified and verified."""
