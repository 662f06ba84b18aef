"""What stands in an AWS account: clean-up of cloudft's own, and the catalogue's drift."""
