"""CloudFormation on this machine. It creates a template's resources in the other services here."""
