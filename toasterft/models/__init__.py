"""Resolve a model's name; its architecture: shape, image geometry, module paths. No torch."""
