"""Reasoning traces for data that has none: written by a teacher behind an API, or by rules from a table."""
