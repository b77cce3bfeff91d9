"""Pretraining of the suite's own small CLIP, tiny-icons."""
