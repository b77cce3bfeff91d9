"""One file over HTTP, in as many pieces as the connection allows.

pooch's own downloader begins anew whenever a connection is cut. This one, which pooch takes in its place, keeps what
came beside the target and asks for the rest (RFC 9110, Range and If-Range). What it must never do is join pieces of two
different files: a partial file goes on only from the address it came from and while the server still names the same
version of it (where it names none, of the same length; a wrong join then shows in the archive's own checksums).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import urllib3

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all, None where a server does not say."""

CHUNK = 1 << 16  # bytes
TIMEOUT = (10, 60)  # seconds: to connect, between two pieces
LARGEST = 1 << 36  # bytes of one file, 64 GiB: a server that never ends must not fill the disk
PATIENCE = 3  # attempts in a row that bring nothing new
MOST_ATTEMPTS = 500  # in all, so that a server which sends a byte at a time ends too


class TransferError(Exception):
    """Why an address cannot give the file; the next address may."""


class _Interrupted(Exception):
    """An attempt that ended early; the same address may give the rest."""


@dataclass
class ResumingDownloader:
    """A downloader for pooch: `downloader(url, output_file, pooch)`.

    part: where the partial file lies until it is whole; a note of its origin lies beside it
    size: bytes the file must have, None where nobody knows
    pause: seconds before the second attempt, doubled with each one that brings nothing

    Raises TransferError where the address fails for good, OSError where the disk does.
    """

    part: Path
    progress: Progress
    size: int | None = None
    pause: float = 1.0

    def __call__(self, url: str, output_file: str, pooch: object = None, check_only: bool = False) -> bool | None:
        """Download `url` to `output_file`; with check_only say whether the address answers."""
        if check_only:
            return requests.head(url, timeout=TIMEOUT, allow_redirects=True).ok
        stalled = 0
        for _ in range(MOST_ATTEMPTS):
            before = self._have(url)
            try:
                self._attempt(url)
                break
            except _Interrupted as error:
                stalled = 0 if self._have(url) > before else stalled + 1
                if stalled >= PATIENCE:
                    raise TransferError(str(error)) from error
                time.sleep(min(30.0, self.pause * 2**stalled))
        else:
            raise TransferError(f"the connection was cut {MOST_ATTEMPTS} times")
        self.part.replace(output_file)
        self._note_file.unlink(missing_ok=True)
        return None

    @property
    def _note_file(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    def _note(self, url: str) -> dict[str, Any]:
        """Return what is known of the partial file: its `version` and `total`; empty if it is none of this address."""
        try:
            note = json.loads(self._note_file.read_text())
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) and note.get("url") == url and self.part.is_file() else {}

    def _have(self, url: str) -> int:
        return self.part.stat().st_size if self._note(url) else 0

    def _attempt(self, url: str) -> None:
        """Bring the partial file forward by one request."""
        note, have = self._note(url), self._have(url)
        if note and note["total"] == have:
            return
        headers = {"Accept-Encoding": "identity"}  # else lengths and positions would be those of another encoding
        if have:
            headers["Range"] = f"bytes={have}-"
            if note["version"]:
                headers["If-Range"] = note["version"]
        try:
            response = requests.get(url, stream=True, headers=headers, timeout=TIMEOUT)
        except requests.RequestException as error:
            raise _failure(error) from error
        with response:
            start, total = self._accept(response, have, note)
            self._write(response, url, start, total)

    def _accept(self, response: requests.Response, have: int, note: dict[str, Any]) -> tuple[int, int | None]:
        """Return where the answer's bytes begin in the file and how long the file is, or refuse the answer."""
        status = response.status_code
        if status == 416 or (status == 206 and have == 0):
            self._forget()
            raise _Interrupted(f"it answers the request for a part with status {status}")
        if status in (408, 425, 429) or status >= 500:
            raise _Interrupted(f"it answers with status {status} ({response.reason})")
        if status not in (200, 206):
            raise TransferError(f"it answers with status {status} ({response.reason})")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise TransferError("it answers with a web page, not with the file")
        if status == 200:
            length = response.headers.get("Content-Length", "")
            start, total = 0, int(length) if length.isdecimal() else None
        else:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
            start, total = (int(found[1]), None if found[2] == "*" else int(found[2])) if found else (-1, None)
            if start != have or total != note["total"] or _version(response) != note["version"]:
                self._forget()
                raise _Interrupted("it changed the file between two requests")
        if total is not None and self.size is not None and total != self.size:
            raise TransferError(f"its file has {total:,} bytes, but {self.size:,} are expected")
        if total is not None and total > LARGEST:
            raise TransferError(f"its file has {total:,} bytes, more than the limit of {LARGEST:,}")
        free = shutil.disk_usage(self.part.parent).free
        if total is not None and total - start > free:
            raise OSError(28, f"{total - start:,} bytes are to come and {free:,} are free")
        return start, total

    def _write(self, response: requests.Response, url: str, start: int, total: int | None) -> None:
        most = min(limit for limit in (total, self.size, LARGEST) if limit is not None)
        if start == 0:
            self.part.write_bytes(b"")
            note = {"url": url, "version": _version(response), "total": total}
            self._note_file.write_text(json.dumps(note))
        done = start
        with self.part.open("r+b") as file:
            file.seek(start)
            for piece in _pieces(response):
                done += len(piece)
                if done > most:
                    self._forget()
                    raise TransferError(f"it sends more than the {most:,} bytes of the file")
                file.write(piece)
                self.progress(done, total)
        expected = self.size if total is None else total
        if expected is not None and done < expected:
            raise _Interrupted(f"the connection ended after {done:,} of {expected:,} bytes")

    def _forget(self) -> None:
        self._note_file.unlink(missing_ok=True)


def _version(response: requests.Response) -> str:
    """Return what names this version of the file in If-Range: a strong ETag, else the date; "" if there is neither."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it came: some servers call a .tar.gz a gzip-encoded .tar, and requests would unpack it."""
    try:
        yield from response.raw.stream(CHUNK, decode_content=False)
    except (urllib3.exceptions.HTTPError, requests.RequestException, ConnectionError, TimeoutError) as error:
        raise _failure(error) from error


def _failure(error: Exception) -> Exception:
    """Return what a network error means: to try again, or not; with the reason in a few words."""
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema)):
        return TransferError("it is no address")
    if isinstance(error, (requests.exceptions.InvalidSchema, requests.exceptions.TooManyRedirects)):
        return TransferError("it leads nowhere that HTTP can follow")
    if isinstance(error, requests.exceptions.SSLError):
        return TransferError("its certificate is not valid")
    if isinstance(error, (requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)):
        return _Interrupted(f"it did not answer within {TIMEOUT[0]} seconds")
    if isinstance(error, (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)):
        return _Interrupted(f"it was silent for {TIMEOUT[1]} seconds")
    text = str(error)
    if "resolve" in text or "Name or service" in text:
        return _Interrupted("no host of this name can be found")
    if "refused" in text:
        return _Interrupted("it refuses the connection")
    if "IncompleteRead" in text:
        return _Interrupted("the connection was cut")
    return _Interrupted(f"the connection failed ({type(error).__name__})")
