"""This build beside another commit: `python -m benchmarks.studies.against REV`, see `__main__.py`."""
