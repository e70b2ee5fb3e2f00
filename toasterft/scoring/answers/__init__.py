"""Is an answer right: one module per kind of answer."""
