"""Where data, caches and checkpoints lie: `CZSL_HOME`, by default a folder in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def home() -> Path:
    """Return the suite's cache folder. It is not made here; whoever writes makes it."""
    chosen = os.environ.get("CZSL_HOME")
    return Path(chosen).expanduser() if chosen else user_cache_path("czsl-bench", appauthor=False)


def data_root() -> Path:
    """Return the folder that holds the data sets' own folders: `CZSL_DATA`, by default `data` in the cache folder."""
    chosen = os.environ.get("CZSL_DATA")
    return Path(chosen).expanduser() if chosen else home() / "data"
