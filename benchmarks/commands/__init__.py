"""The command line: each module parses, calls the rooms below, and prints."""
