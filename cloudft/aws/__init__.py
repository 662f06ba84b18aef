"""Amazon Web Services: the only room that imports boto3."""
