"""The workbench: jobs, data, answers, labels and costs in the browser, on this machine only."""
