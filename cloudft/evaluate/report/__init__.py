"""HTML pages about a job: one self-contained file each."""
