"""Which model a name means, and what its architecture is: shape, image geometry, module paths. Light."""
