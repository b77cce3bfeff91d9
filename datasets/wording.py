"""`counted` for `conversions.py`, whose source, this import included, is part of the keys of cached features."""

from errors import counted as counted
