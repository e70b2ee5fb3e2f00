"""From a recipe to a run: prepare, execute, pipelines, calibration, rented machines."""
