"""A Bedrock-compatible endpoint on this machine, which says in every response that it is not AWS.

Routes, members, errors and validation follow botocore's service model. Jobs are real: they read
their data from S3, train, and write their output files to S3.
"""
