"""Imported by Python as it starts, where this folder is on its path: the stand-in for a CUDA device."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import standin

standin.install()
