"""Send parameters, curves and results of jobs to the experiment trackers that people use."""
