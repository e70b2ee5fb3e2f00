"""The run folder: what was asked, what happened, what it cost; written by one process, read by everybody."""
