"""What a run is on disk: its specification and settings, its folder, its record."""
