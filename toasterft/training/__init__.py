"""What can be done with a model: one module per command, each with a `run(job, ...)`. Heavy."""
