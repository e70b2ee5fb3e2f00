"""The run folder: recipe, metrics, results and costs; written by one process, read by everybody."""
