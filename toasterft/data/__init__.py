"""Examples: what they are, where they come from, what their prompts look like."""
