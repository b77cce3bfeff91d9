"""What the operating system can do. Linux is what is tried; macOS is like it; Windows lacks what is named here."""

from __future__ import annotations

import os


def is_posix() -> bool:
    """Return whether processes can be forked and asked to stop by signals, which Windows cannot."""
    return hasattr(os, "fork")
