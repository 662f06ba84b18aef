"""What the AWS backends share: location, calls, account checks, stack outputs."""
