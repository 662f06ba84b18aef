"""Who may call what on the endpoint: principals, roles, policies."""
