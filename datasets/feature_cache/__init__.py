"""Frozen image features on disk: their key, their shards, the cache, and what people see of it."""
