"""Jobs on this machine: the trainer program in a process of its own."""
