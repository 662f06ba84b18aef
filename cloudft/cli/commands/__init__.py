"""One file for each command of `cloudft`, named after it."""
