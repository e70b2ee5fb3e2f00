"""The teacher that needs no network: traces derived from the table behind a chart."""
