"""Run a grader's `lambda_handler(event, context)` as AWS Lambda does, in a process of its own."""
