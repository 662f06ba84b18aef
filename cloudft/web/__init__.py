"""HTTP servers on this machine: which requests they answer."""
