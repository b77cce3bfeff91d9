"""Requests become records: what was chosen, what is to be done, and doing it."""
