"""Amazon Web Services: the only package, beside the endpoint, that imports boto3."""
