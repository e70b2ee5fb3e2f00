"""A run for other people: merged weights, GGUF, the hub, the model card, the report page."""
