"""How right a model is: evaluate, ask, matrices, comparisons, the arena."""
