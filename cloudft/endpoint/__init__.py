"""A Bedrock-compatible endpoint on this machine: not AWS, and it says so.

Routes, members, errors and validation follow from botocore's own service model; what a job does is
real: it reads its data from S3, trains, and writes its output files to S3.
"""
