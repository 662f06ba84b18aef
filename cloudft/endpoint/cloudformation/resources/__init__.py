"""Resource types that stacks on the endpoint create, by service."""
