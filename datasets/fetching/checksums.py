"""What is known of the archives in a downloads folder: where each came from, its size and SHA-256."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.files import write_whole
from errors import UserError

CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Origin:
    """An archive that is there: the name of its record, where it came from and when, its size and checksum."""

    name: str
    path: Path
    source: str
    bytes: int
    sha256: str
    date: str

    def record(self) -> dict[str, Any]:
        """Return what is written of it."""
        return {"source": self.source, "bytes": self.bytes, "sha256": self.sha256, "date": self.date}


def write(downloads: Path, records: dict[str, Any]) -> None:
    """Add records of archives, by file name, to those of a downloads folder."""
    write_whole(downloads / CHECKSUMS, json_text({**read(downloads / CHECKSUMS), **records}))


def read(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} if there is none, a UserError if it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read.", "It is no JSON object.", "Delete it and run the command again.")
    return content


def json_text(content: dict[str, Any]) -> str:
    """Return an object as JSON, a field a line."""
    return json.dumps(content, indent=1) + "\n"


def today() -> str:
    """Return the date, UTC, as YYYY-MM-DD."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
