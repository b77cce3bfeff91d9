"""For the tests of fetching: small archives in the published layouts, and a server on loopback that misbehaves."""

from __future__ import annotations

import contextlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from datasets.metadata import SPLIT

PAIRS = {"train": "wet cat\ndry dog\n", "val": "wet dog\ndry dog\n", "test": "dry cat\nwet cat\n"}


def zip_bytes(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file of these members."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as package:
        for name, content in members.items():
            package.writestr(name, content)
    return target.getvalue()


def tar_bytes(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """A .tar.gz file; a TarInfo in place of a content is put in as it is (links, devices)."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def picture(number: int) -> bytes:
    """Bytes that stand for an image; fetching never looks into one."""
    return bytes((number * 7 + i) % 251 for i in range(3000))


def metadata(entries: list[dict[str, str]]) -> bytes:
    """A metadata file as published: torch.save of a list of dictionaries."""
    import torch

    target = io.BytesIO()
    torch.save(entries, target)
    return target.getvalue()


def split_members(top: str, entries: list[dict[str, str]]) -> dict[str, bytes]:
    """The pair lists and metadata of one data set, below `top`."""
    files = {f"{top}/{SPLIT}/{phase}_pairs.txt": text.encode() for phase, text in PAIRS.items()}
    return {**files, f"{top}/metadata_{SPLIT}.t7": metadata(entries)}


def mit_entries() -> list[dict[str, str]]:
    """Metadata of four MIT-States images, one of them of no split."""
    rows = [("wet_cat/a.jpg", "train"), ("dry_dog/b.jpg", "val"), ("dry_cat/c.jpg", "test"), ("adj_cat/d.jpg", "NA")]
    return [
        {"image": image, "attr": image.split("_")[0].replace("adj", "NA"), "obj": image[4:7], "set": phase}
        for image, phase in rows
    ]


def zappos_entries() -> list[dict[str, str]]:
    """Metadata of three UT-Zappos images; one brand folder ends in a dot, one entry has no state."""
    rows = [
        ("Boots/Ankle/Brand Inc./1.2.jpg", "Suede", "Boots.Ankle", "train"),
        ("Shoes/Oxfords/B\u00f8rn/3.4.jpg", "Canvas", "Shoes.Oxfords", "test"),
        ("Shoes/Oxfords/Other/5.6.jpg", "NA", "Shoes.Oxfords", "NA"),
    ]
    return [
        {"image": f"{a}_{o}/{raw.rpartition('/')[2]}", "_image": raw, "attr": a, "obj": o, "set": phase}
        for raw, a, o, phase in rows
    ]


def splits_archive() -> bytes:
    """The shared archive of splits."""
    return tar_bytes(split_members("mit-states", mit_entries()) | split_members("ut-zap50k", zappos_entries()))


def mit_images() -> bytes:
    """The archive of MIT-States images."""
    names = ("wet cat/a.jpg", "dry dog/b.jpg", "dry cat/c.jpg", "adj cat/d.jpg")
    members = {f"release_dataset/images/{name}": picture(i) for i, name in enumerate(names)}
    return zip_bytes({"release_dataset/README.txt": b"hello", "release_dataset/images/": b"", **members})


def zappos_images() -> bytes:
    """The archive of UT-Zappos images; zipfile writes the non-ASCII name with the UTF-8 mark."""
    return zip_bytes({f"ut-zap50k-images/{e['_image']}": picture(i) for i, e in enumerate(zappos_entries())})


def cgqa_members() -> dict[str, bytes]:
    """What is in the archive of C-GQA, without a top folder."""
    entries = [{"image": f"{i}-wet-cat.jpg", "attr": "wet", "obj": "cat", "set": "train"} for i in range(3)]
    files = {name.partition("/")[2]: content for name, content in split_members("x", entries).items()}
    return {**files, **{f"images/{e['image']}": picture(i) for i, e in enumerate(entries)}}


@dataclass
class Route:
    """How the server answers for a path.

    cuts: after how many bytes of the body the first, second ... answer breaks off. ranges: whether parts are served.
    hold: after how many bytes an answer waits for `released`.
    """

    body: bytes = b""
    status: int = 200
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"'})
    length: bool = True
    hold: int | None = None
    released: threading.Event = field(default_factory=threading.Event)


class Server:
    """A running server. requests: the path and Range header of each request so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.routes: dict[str, Route] = {}
        self.requests: list[tuple[str, str | None]] = []

    def address(self, name: str, route: Route) -> str:
        """Serve `route` under a name and return its address."""
        self.routes[f"/{name}"] = route
        return f"{self.url}/{name}"


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server on 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.requests.append((self.path, wanted))
            route = server.routes.get(self.path, Route(status=404))
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and route.ranges else 0
            same = self.headers.get("If-Range") in (None, route.headers.get("ETag"), route.headers.get("Last-Modified"))
            start = start if same else 0
            status = (
                route.status if route.status != 200 else 416 if start >= len(route.body) > 0 else 206 if start else 200
            )
            body = route.body[start:]
            self.send_response(status)
            for name, value in route.headers.items():
                self.send_header(name, value)
            if route.length:
                self.send_header("Content-Length", str(len(body)))
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(route.body) - 1}/{len(route.body)}")
            self.end_headers()
            body = body[: route.cuts.pop(0)] if route.cuts else body
            self.wfile.write(body[: route.hold])
            if route.hold is not None and not route.released.wait(300):
                return
            with contextlib.suppress(ConnectionError):  # whoever asked may be gone by now
                self.wfile.write(body[len(body[: route.hold]) :])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
