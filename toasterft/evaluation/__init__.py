"""Measure a model's accuracy: evaluate, ask, matrices, comparisons, the arena."""
