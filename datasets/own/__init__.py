"""Somebody's own images as a data set: a folder or a CSV file, and its split."""
