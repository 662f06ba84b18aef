"""Jobs on Amazon Bedrock: model customization jobs."""
