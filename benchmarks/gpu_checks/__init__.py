"""What `gpu.py` checks: `parts` in worker processes, `verdict` and `table` from what they find."""
