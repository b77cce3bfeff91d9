"""Fetching, against a server on loopback that cuts connections, changes files and lies; no other address is asked."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from archives import (
    Route,
    cgqa_members,
    mit_images,
    picture,
    serving,
    splits_archive,
    tar_bytes,
    zappos_images,
    zip_bytes,
)  # fmt: skip
from in_process import here

from datasets.fetching import download, transfer, unpack
from datasets.fetching.plan import plan_fetch
from datasets.fetching.sources import SOURCES
from datasets.fetching.transfer import ResumingDownloader, TransferError
from errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """Fail loudly, and at once, where anything but 127.0.0.1 is looked up."""
    look_up = socket.getaddrinfo

    def guarded(host, *rest, **options):
        assert host == "127.0.0.1", f"a test asked for {host}"
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", guarded)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with serving() as running:
        yield running


def downloader(tmp_path, **options):
    seen = []
    made = ResumingDownloader(tmp_path / "x.part", lambda done, total: seen.append((done, total)), pause=0, **options)
    return made, seen


def mirrored(name: str, urls: dict[str, list[str]], **changes) -> dict:
    """The source `name` with other mirrors for each of its archives."""
    source = SOURCES[name]
    archives = tuple(replace(a, urls=tuple(urls.get(a.file, ())), **changes) for a in source.archives)
    return {name: replace(source, archives=archives)}


def fetch(name, root, urls, given=(), **options):
    return download.fetch(plan_fetch(name, root, given, mirrored(name, urls)), pause=0, **options)


def error_of(call, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return str(caught.value)


# One file


def test_a_cut_download_goes_on_where_it_ended(server, tmp_path):
    body = picture(1) * 100
    url = server.address("x", Route(body, cuts=[1000, 100_000]))
    get, seen = downloader(tmp_path)
    get(url, str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == body
    starts = [int(wanted[6:-1]) if wanted else 0 for _, wanted in server.requests]
    assert starts == [0, 1000, 101_000]
    assert seen[-1] == (len(body), len(body))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


def test_a_partial_file_outlives_the_process(server, tmp_path):
    body = picture(2) * 10
    route = Route(body, cuts=[10_000, 0, 0, 0])
    url = server.address("x", route)
    with pytest.raises(TransferError, match="the connection"):
        downloader(tmp_path)[0](url, str(tmp_path / "x"))
    route.cuts = []
    downloader(tmp_path)[0](url, str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == body
    assert server.requests[-1][1] == "bytes=10000-"


def test_a_server_without_ranges_is_asked_for_all_of_it_again(server, tmp_path):
    body = picture(3) * 10
    url = server.address("x", Route(body, cuts=[5000], ranges=False))
    downloader(tmp_path)[0](url, str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == body


@pytest.mark.parametrize("ranged", [True, False])
def test_pieces_of_two_versions_are_never_joined(server, tmp_path, ranged):
    route = Route(picture(4) * 10, cuts=[7000, 0, 0, 0])
    url = server.address("x", route)
    with pytest.raises(TransferError):
        downloader(tmp_path)[0](url, str(tmp_path / "x"))
    # Of the same length; with If-Range the server sends it whole, without (no version named) only its total could tell.
    route.body, route.headers, route.cuts = picture(5) * 10, {"ETag": '"2"'}, []
    if not ranged:
        server.routes["/x"] = replace(route, headers={"Last-Modified": "Tue, 15 Nov 1994 12:45:26 GMT"})
    downloader(tmp_path)[0](url, str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == picture(5) * 10


def test_a_partial_file_of_another_address_is_not_gone_on_with(server, tmp_path):
    first = server.address("a", Route(picture(1), cuts=[100, 0, 0, 0]))
    with pytest.raises(TransferError):
        downloader(tmp_path)[0](first, str(tmp_path / "x"))
    second = server.address("b", Route(picture(2)))
    downloader(tmp_path)[0](second, str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == picture(2)


def test_a_file_that_became_whole_just_before_a_kill_needs_no_request(server, tmp_path):
    url = server.address("x", Route(picture(1)))
    get, _ = downloader(tmp_path)
    get.part.write_bytes(picture(1))
    get._note_file.write_text(json.dumps({"url": url, "version": '"1"', "total": 3000}))
    get(url, str(tmp_path / "x"))
    assert server.requests == []


def test_attempts_are_bounded(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MOST_ATTEMPTS", 20)
    url = server.address("x", Route(bytes(1000), cuts=[1] * 1000))
    with pytest.raises(TransferError, match="cut 20 times"):
        downloader(tmp_path)[0](url, str(tmp_path / "x"))
    assert len(server.requests) == 20


@pytest.mark.parametrize(
    ("route", "options", "reason", "requests"),
    [
        (Route(status=404), {}, "status 404", 1),
        (Route(status=503), {}, "status 503", 3),
        (Route(b"<html>", headers={"Content-Type": "text/html; charset=utf-8"}), {}, "a web page", 1),
        (Route(bytes(900)), {"size": 1000}, "has 900 bytes, but 1,000 are expected", 1),
        (Route(bytes(1100), length=False), {"size": 1000}, "sends more than the 1,000 bytes", 1),
        (Route(bytes(900), length=False, ranges=False), {"size": 1000}, "ended after 900 of 1,000", 4),
    ],
)
def test_a_bad_address_says_why(server, tmp_path, route, options, reason, requests):
    url = server.address("x", route)
    with pytest.raises(TransferError, match=reason):
        downloader(tmp_path, **options)[0](url, str(tmp_path / "x"))
    assert len(server.requests) == requests


def test_hosts_that_do_not_answer(tmp_path):
    with socket.socket() as taken:  # a port where nobody listens
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(TransferError, match="refuses the connection"):
            downloader(tmp_path)[0](f"http://127.0.0.1:{taken.getsockname()[1]}/x", str(tmp_path / "x"))
    for address in ("x", "ftp://127.0.0.1/x"):
        with pytest.raises(TransferError):
            downloader(tmp_path)[0](address, str(tmp_path / "x"))


def test_too_little_space_is_known_before_the_first_byte(server, tmp_path, monkeypatch):
    url = server.address("x", Route(picture(1)))
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(OSError, match="3,000 bytes are to come and 100 are free"):
        downloader(tmp_path)[0](url, str(tmp_path / "x"))
    assert not (tmp_path / "x.part").exists()


# Whole data sets


def mit_urls(server, images: bytes | Route, splits: bytes | Route | None = None) -> dict[str, list[str]]:
    found = {}
    for file, content in (("release_dataset.zip", images), ("compositional_split_natural.tar.gz", splits)):
        content = splits_archive() if content is None else content
        found[file] = [server.address(file, content if isinstance(content, Route) else Route(content))]
    return found


def test_mit_states_as_published(server, tmp_path):
    images = mit_images()
    tasks = []
    urls = mit_urls(server, Route(images, cuts=[200]))
    dead = server.url + "/gone.tar.gz"
    urls["compositional_split_natural.tar.gz"].insert(0, dead)
    manifest = fetch("mit_states", tmp_path, urls, progress=lambda what, done, total: tasks.append(what))
    folder = tmp_path / "mit-states"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == sorted(["manifest.json", *manifest["files"]])
    assert sorted(name for name in files if name.startswith("images")) == [
        *("images/adj_cat/d.jpg", "images/dry_cat/c.jpg", "images/dry_dog/b.jpg", "images/wet_cat/a.jpg"),
    ]
    assert (folder / "images/dry_dog/b.jpg").read_bytes() == picture(1)
    assert manifest["files"]["images/dry_dog/b.jpg"] == 3000
    assert (folder / "compositional-split-natural/val_pairs.txt").read_text() == "wet dog\ndry dog\n"
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    record = manifest["archives"]["release_dataset.zip"]
    assert record["sha256"] == hashlib.sha256(images).hexdigest()
    assert (record["bytes"], record["source"]) == (len(images), urls["release_dataset.zip"][0])
    assert ("/gone.tar.gz", None) in server.requests
    assert manifest["missing"] == []
    assert {"download release_dataset.zip", "unpack release_dataset.zip"} <= set(tasks)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["downloads", "mit-states"]

    asked = len(server.requests)
    assert fetch("mit_states", tmp_path, urls) == manifest
    assert len(server.requests) == asked, "a whole data set asks nobody"


def test_ut_zappos_is_brought_into_folders_by_pair(server, tmp_path):
    urls = {"ut-zap50k-images.zip": [server.address("i", Route(zappos_images()))]}
    urls["compositional_split_natural.tar.gz"] = [server.address("s", Route(splits_archive()))]
    manifest = fetch("ut_zappos", tmp_path, urls)
    folder = tmp_path / "ut-zappos"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.glob("images/*/*")) == [
        "images/Canvas_Shoes.Oxfords/3.4.jpg",
        "images/Suede_Boots.Ankle/1.2.jpg",
    ]
    assert (folder / "images/Canvas_Shoes.Oxfords/3.4.jpg").read_bytes() == picture(1)
    assert manifest["missing"] == []
    fetched = mit_urls(server, mit_images())
    asked = len(server.requests)
    fetch("mit_states", tmp_path, fetched)
    assert [path for path, _ in server.requests[asked:]] == ["/release_dataset.zip"], "the splits are there already"


def test_images_that_no_archive_has_are_listed(server, tmp_path):
    only = zip_bytes({"ut-zap50k-images/Boots/Ankle/Brand Inc./1.2.jpg": picture(0)})
    urls = {"ut-zap50k-images.zip": [server.address("i", Route(only))]}
    urls["compositional_split_natural.tar.gz"] = [server.address("s", Route(splits_archive()))]
    assert fetch("ut_zappos", tmp_path, urls)["missing"] == ["images/Canvas_Shoes.Oxfords/3.4.jpg"]


@pytest.mark.parametrize("top", ["", "cgqa/", "./"])
def test_cgqa_with_and_without_a_top_folder(server, tmp_path, top):
    extra = {"__MACOSX/images/._0-wet-cat.jpg": b"x", f"{top}notes.txt": b"x"}
    archive = zip_bytes({f"{top}{name}": content for name, content in cgqa_members().items()} | extra)
    manifest = fetch("cgqa", tmp_path, {"cgqa.zip": [server.address("c", Route(archive))]})
    assert sorted(manifest["files"]) == sorted(cgqa_members())


def test_vaw_czsl_is_put_there_by_hand_in_pieces(tmp_path):
    message = error_of(plan_fetch, "vaw_czsl", tmp_path)
    for part in (
        "cannot be downloaded by a program",
        "drive.google.com",
        "vaw-czsl-1.zip",
        str(tmp_path / "downloads"),
    ):
        assert part in message
    (tmp_path / "downloads").mkdir()
    members = [*cgqa_members().items()]
    for number, part in enumerate((members[:2], members[2:])):
        content = zip_bytes({f"VAW-CZSL/{name}": body for name, body in part})
        (tmp_path / f"downloads/vaw-czsl-{number}.zip").write_bytes(content)
    manifest = download.fetch(plan_fetch("vaw_czsl", tmp_path))
    assert sorted(manifest["files"]) == sorted(cgqa_members())
    assert {record["source"] for record in manifest["archives"].values()} == {"by hand"}
    assert set(manifest["archives"]) == {"vaw-czsl-0.zip", "vaw-czsl-1.zip"}


def test_an_archive_that_lies_there_needs_no_network(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/cgqa.zip").write_bytes(zip_bytes(cgqa_members()))
    assert download.fetch(plan_fetch("cgqa", tmp_path))["archives"]["cgqa.zip"]["source"] == "by hand"


def test_other_sources_can_be_named(server, tmp_path):
    box = tmp_path / "box"
    box.mkdir()
    (box / "cgqa.zip").write_bytes(zip_bytes(cgqa_members()))
    (box / "mine.zip").write_bytes(zip_bytes(cgqa_members()))
    server.address("mirror/cgqa.zip", Route(zip_bytes(cgqa_members())))
    for number, given in enumerate([box, box / "mine.zip", server.url + "/mirror/", server.url + "/mirror/cgqa.zip"]):
        download.fetch(plan_fetch("cgqa", tmp_path / str(number), [str(given)]))
    assert "It is not clear which archive" in error_of(plan_fetch, "mit_states", tmp_path, [str(box / "mine.zip")])
    assert "no such file or folder" in error_of(plan_fetch, "cgqa", tmp_path, ["mirror/cgqa.zip"])


def test_when_every_mirror_fails_the_message_says_what_to_do(server, tmp_path):
    urls = {"cgqa.zip": [server.url + "/a.zip", server.address("b.zip", Route(b"<html>", headers={}))]}
    message = error_of(fetch, "cgqa", tmp_path, urls)
    for part in ("a.zip: it answers with status 404", "b.zip: The archive cgqa.zip is truncated or damaged"):
        assert part in message
    for part in (f"put it at {tmp_path / 'downloads/cgqa.zip'}", "huggingface.co/datasets/nihalnayak/cgqa"):
        assert part in message
    assert not (tmp_path / "cgqa").exists()


def test_the_first_checksum_is_kept_and_compared(server, tmp_path):
    first, other = zip_bytes(cgqa_members()), zip_bytes({**cgqa_members(), "images/0-wet-cat.jpg": picture(9)})
    route = Route(first)
    urls = {"cgqa.zip": [server.address("c.zip", route)]}
    fetch("cgqa", tmp_path, urls)
    pins = json.loads((tmp_path / "downloads/checksums.json").read_text())
    assert pins["cgqa.zip"]["sha256"] == hashlib.sha256(first).hexdigest()

    # Everything but the record is lost, and the server has another file of the same length.
    for path in [*tmp_path.glob("cgqa/**/*"), tmp_path / "downloads/cgqa.zip"]:
        if path.is_file():
            path.unlink()
    for path in sorted(tmp_path.glob("cgqa/**/*"), reverse=True):
        path.rmdir()
    assert len(other) == len(first)
    route.body = other
    message = error_of(fetch, "cgqa", tmp_path, urls)
    assert f"expected {hashlib.sha256(first).hexdigest()} but got {hashlib.sha256(other).hexdigest()}" in message
    assert not (tmp_path / "downloads/cgqa.zip").exists()
    second = server.address("d.zip", Route(first))
    fetch("cgqa", tmp_path, {"cgqa.zip": [*urls["cgqa.zip"], second]})

    # A file that was put there is never deleted, but named.
    (tmp_path / "cgqa").rename(tmp_path / "old")
    (tmp_path / "downloads/cgqa.zip").write_bytes(other)
    message = error_of(fetch, "cgqa", tmp_path, urls)
    assert "is not the one that is known" in message and "--repin" in message
    manifest = fetch("cgqa", tmp_path, urls, repin=True)
    assert manifest["archives"]["cgqa.zip"]["source"] == "by hand"
    pins = json.loads((tmp_path / "downloads/checksums.json").read_text())
    assert pins["cgqa.zip"]["sha256"] == hashlib.sha256(other).hexdigest()


def test_a_size_known_beforehand_is_demanded(server, tmp_path):
    urls = {"cgqa.zip": [server.address("c.zip", Route(zip_bytes(cgqa_members())))]}
    plan = plan_fetch("cgqa", tmp_path, (), mirrored("cgqa", urls, size=5, sha256="ab"))
    assert "but 5 are expected" in error_of(download.fetch, plan, pause=0)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", ["release_dataset.zip", "compositional_split_natural.tar.gz"])
def test_a_truncated_archive_is_named(tmp_path, name, keep):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / "release_dataset.zip").write_bytes(mit_images())
    (downloads / "compositional_split_natural.tar.gz").write_bytes(splits_archive())
    whole = (downloads / name).read_bytes()
    (downloads / name).write_bytes(whole[: int(len(whole) * keep)])
    message = error_of(fetch, "mit_states", tmp_path, {})
    assert f"The archive {name} is truncated or damaged" in message
    assert (downloads / name).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["downloads"]
    (downloads / name).write_bytes(whole)
    fetch("mit_states", tmp_path, {})


def test_a_flipped_bit_is_found(tmp_path):
    (tmp_path / "downloads").mkdir()
    archive = bytearray(zip_bytes(cgqa_members(), compression=0))
    archive[archive.index(picture(1)) + 50] ^= 1
    (tmp_path / "downloads/cgqa.zip").write_bytes(archive)
    assert "Bad CRC-32 for file 'images/1-wet-cat.jpg'" in error_of(fetch, "cgqa", tmp_path, {})


def test_an_archive_of_something_else_is_named(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/cgqa.zip").write_bytes(zip_bytes({"cgqa/readme.txt": b"x"}))
    message = error_of(fetch, "cgqa", tmp_path, {})
    assert "is not complete: it lacks images, compositional-split-natural" in message


def test_metadata_that_would_run_code_is_refused(tmp_path):
    import pickle

    class Harmful:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    (tmp_path / "downloads").mkdir()
    name = "metadata_compositional-split-natural.t7"
    (tmp_path / "downloads/cgqa.zip").write_bytes(zip_bytes({**cgqa_members(), name: pickle.dumps([Harmful()], 2)}))
    assert "The metadata" in error_of(fetch, "cgqa", tmp_path, {})
    assert not (tmp_path / "ran").exists()


def test_an_interrupted_unpacking_leaves_nothing_and_the_next_fetch_completes(server, tmp_path, monkeypatch):
    urls = mit_urls(server, mit_images())
    whole = download.unpack

    def interrupted(archive, folder, *rest):
        if archive.suffix == ".zip":
            (folder / "images").mkdir()
            (folder / "images/half.jpg").write_bytes(b"x")
            raise KeyboardInterrupt
        return whole(archive, folder, *rest)

    monkeypatch.setattr(download, "unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("mit_states", tmp_path, urls)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["downloads"]
    monkeypatch.undo()
    # As after a kill, when nothing could be tidied up.
    (tmp_path / ".mit-states.unpacking/images").mkdir(parents=True)
    (tmp_path / ".mit-states.unpacking/images/half.jpg").write_bytes(b"x")
    asked = len(server.requests)
    manifest = fetch("mit_states", tmp_path, {})
    assert len(server.requests) == asked, "what was downloaded is used"
    assert manifest["archives"]["release_dataset.zip"]["source"] == urls["release_dataset.zip"][0]
    assert not (tmp_path / "mit-states/images/half.jpg").exists()


def test_a_full_disk_is_said_and_the_download_kept(server, tmp_path, monkeypatch):
    urls = {"cgqa.zip": [server.address("c.zip", Route(zip_bytes(cgqa_members())))]}

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(transfer.ResumingDownloader, "_write", full)
        assert "No space left on device" in error_of(fetch, "cgqa", tmp_path, urls)
    make = Path.mkdir
    with monkeypatch.context() as broken:
        broken.setattr(
            unpack.Path,
            "mkdir",
            lambda self, **_: full() if "images" in self.parts else make(self, exist_ok=True, parents=True),
        )
        message = error_of(fetch, "cgqa", tmp_path, urls)
    assert "C-GQA (updated release) cannot be written below" in message and "CZSL_DATA" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["downloads"]
    with monkeypatch.context() as broken:
        broken.setattr(unpack.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
        assert "are to be unpacked and 100 are free" in error_of(fetch, "cgqa", tmp_path, {})
    fetch("cgqa", tmp_path, {})


def test_a_folder_of_the_users_own_is_left_alone(tmp_path):
    (tmp_path / "cgqa").mkdir()
    (tmp_path / "cgqa/precious.txt").write_text("x")
    assert "The folder holds something else already" in error_of(plan_fetch, "cgqa", tmp_path)
    for name, content in cgqa_members().items():
        path = tmp_path / "cgqa" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    plan = plan_fetch("cgqa", tmp_path)
    assert plan.state == "by hand"
    assert download.fetch(plan) == {}
    assert (tmp_path / "cgqa/precious.txt").read_text() == "x"


def test_two_at_once_do_not_meet(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/cgqa.zip").write_bytes(zip_bytes(cgqa_members()))
    plan = plan_fetch("cgqa", tmp_path)
    with download._alone(plan):
        assert "Another process is fetching" in error_of(download.fetch, plan)
    download.fetch(plan)


def test_unknown_names(tmp_path):
    assert "Did you mean 'mit_states'?" in error_of(plan_fetch, "mit_state", tmp_path)


# The command


def test_the_command(server, tmp_path):
    mit_urls(server, mit_images())
    fetch = partial(here, "data", "fetch", env={"CZSL_DATA": str(tmp_path)})
    refused = fetch("mit_states", "--from", server.url + "/", check=False)
    assert refused.returncode == 2
    assert "Pass --yes." in refused.stderr
    assert server.requests == []
    done = fetch("mit_states", "--from", server.url + "/", "--yes")
    assert f"MIT-States: 8 files, 0.00 GB in {tmp_path / 'mit-states'}" in done.stdout
    assert "Licence: none declared" in done.stdout
    assert "unpack release_dataset.zip" in done.stderr
    assert "is there already" in fetch("mit_states").stdout
    assert "Error: The archive vaw-czsl.zip" in fetch("vaw_czsl", check=False).stderr


def test_kill_9_during_a_download_then_fetch_again(server, tmp_path):
    content = zip_bytes({**cgqa_members(), "images/large.jpg": os.urandom(400_000)})
    route = Route(content, hold=200_000)
    server.address("cgqa.zip", route)
    command = [sys.executable, str(ROOT / "bench.py"), "data", "fetch", "cgqa", "--from", server.url + "/", "--yes"]
    process = subprocess.Popen(
        command, env={**os.environ, "CZSL_DATA": str(tmp_path)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if any(part.stat().st_size >= 3 * transfer.CHUNK for part in tmp_path.glob("downloads/.cgqa.zip.*.part")):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    route.released.set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["downloads"]
    manifest = download.fetch(plan_fetch("cgqa", tmp_path, [server.url + "/"]), pause=0)
    assert server.requests == [("/cgqa.zip", None), ("/cgqa.zip", f"bytes={3 * transfer.CHUNK}-")]
    assert manifest["archives"]["cgqa.zip"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert not list(tmp_path.glob("downloads/.cgqa*"))


def test_sources_are_complete():
    """Every source names a folder of its own, known archives and a licence."""
    assert len({source.folder for source in SOURCES.values()}) == len(SOURCES)
    for source in SOURCES.values():
        assert source.licence and source.expects
        for archive in source.archives:
            assert archive.by_hand.endswith(".")
            assert all(url.startswith(("http://", "https://")) for url in archive.urls)
    assert tar_bytes({})[:2] == b"\x1f\x8b"
