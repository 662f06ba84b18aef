"""CloudFormation on this machine: it makes what a template says with the services beside it."""
