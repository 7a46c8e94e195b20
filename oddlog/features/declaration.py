"""The features, declared once: name, meaning, formula, direction, unit. Computation is in `compute.py`."""
