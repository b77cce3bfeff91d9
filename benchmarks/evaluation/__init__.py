"""Scores become numbers: per-image records, the exact curve, metrics, thresholds of the open world."""
