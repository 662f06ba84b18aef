"""Label records: what a person says of a record, the most informative records first."""
