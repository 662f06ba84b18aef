"""Files on this machine: CLOUDFT_HOME, job records, artifacts, checked documents, archives."""
