"""Archives that are damaged or made to do harm: nothing lands outside of the folder, and nothing grows without end."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from archives import tar_bytes, zip_bytes

from datasets.fetching.unpack import Limits, check_archive, unpack
from errors import UserError


def everything(member: PurePosixPath) -> tuple[PurePosixPath, ...]:
    return (member,)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "inner/folder"
    made.mkdir(parents=True)
    return made


def archive(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "some.archive"
    path.write_bytes(content)
    return path


def refusal(tmp_path, folder, content: bytes, limits: Limits | None = None, place=everything) -> str:
    with pytest.raises(UserError) as caught:
        unpack(archive(tmp_path, content), folder, place, limits=limits or Limits())
    outside = {path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(folder)}
    assert outside == {tmp_path / "some.archive"}
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    return str(caught.value)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("make", [zip_bytes, tar_bytes])
def test_files_arrive_whole_where_they_are_wanted(tmp_path, folder, make):
    members = {"a/b.txt": b"one" * 1000, "a/c.txt": b"", "d.txt": b"two", "not wanted": b"x"}
    seen = []

    def place(member):
        twice = (PurePosixPath("copy.txt"), PurePosixPath("deep/er.txt"))
        return twice if member.name == "d.txt" else () if " " in member.name else (member,)

    path = archive(tmp_path, make(members))
    check_archive(path)
    written = unpack(path, folder, place, lambda done, total: seen.append(done))
    assert written == {"a/b.txt": 3000, "a/c.txt": 0, "copy.txt": 3, "deep/er.txt": 3}
    assert {name: (folder / name).stat().st_size for name in written} == written
    assert (folder / "a/b.txt").read_bytes() == b"one" * 1000
    assert (folder / "deep/er.txt").read_bytes() == b"two"
    assert seen[-1] == 3003


@pytest.mark.parametrize("make", [zip_bytes, tar_bytes])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "a/..", "..\\evil", "a\\..\\..\\evil", "C:\\evil", "c:evil", "\\evil"]
)
def test_names_that_lead_out_are_refused(tmp_path, folder, make, name):
    message = refusal(tmp_path, folder, make({"good": b"x", name: b"evil"}))
    assert f"its member {name!r} would land outside of the folder" in message
    # Also where nobody wants the member: such an archive is not to be trusted at all.
    assert "refused" in refusal(tmp_path, folder, make({name: b"evil"}), place=lambda member: ())


def test_a_place_that_leads_out_is_refused(tmp_path, folder):
    """UT-Zappos's places come from its metadata, which is a stranger's file too."""
    place = lambda member: (PurePosixPath("images/../../evil"),)  # noqa: E731
    assert "would land outside" in refusal(tmp_path, folder, zip_bytes({"a": b"x"}), place=place)


@pytest.mark.parametrize(
    "info",
    [
        link("a/link", "/etc/passwd"),
        link("a/link", "../../outside"),
        link("a/link", "../outside", tarfile.LNKTYPE),
        link("a/pipe", "", tarfile.FIFOTYPE),
        link("a/device", "", tarfile.CHRTYPE),
    ],
)
def test_links_and_devices_are_never_made(tmp_path, folder, info):
    content = tar_bytes({"x": b"1", info.name: info})
    message = refusal(tmp_path, folder, content)
    assert f"its member {info.name!r} is" in message and "Only plain files are unpacked" in message
    path = archive(tmp_path, content)  # one that is not wanted does no harm
    assert unpack(path, folder / "..", lambda member: (member,) if member.name == "y" else ()) == {}


def test_a_link_in_a_zip_is_never_made(tmp_path, folder):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as package:
        info = zipfile.ZipInfo("images")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        package.writestr(info, "../../outside")
        package.writestr("images/evil", b"x")
    assert "its member 'images' is a link" in refusal(tmp_path, folder, target.getvalue())


LIMITS = Limits(total=200_000, ratio=10, free=10_000, members=20)


@pytest.mark.parametrize("make", [zip_bytes, tar_bytes])
def test_bombs_are_refused(tmp_path, folder, make):
    ratio = refusal(tmp_path, folder, make({"a": bytes(150_000)}), LIMITS)
    assert "would become more than 10,000" in ratio
    many = refusal(tmp_path, folder, make({f"m{i}": b"" for i in range(21)}), LIMITS)
    assert "it has more than 20 members" in many
    noise = bytes(i * i % 251 for i in range(60_000))
    total = refusal(tmp_path, folder, make({f"n{i}": noise for i in range(4)}), Limits(total=200_000))
    assert "would become more than 200,000" in total
    unpack(
        archive(tmp_path, make({f"o{i}": noise for i in range(3)})),
        folder.parent,
        everything,
        limits=Limits(total=200_000),
    )


def test_a_member_larger_than_it_says_is_refused(tmp_path, folder):
    """A zip whose list of members understates a size."""
    content = bytearray(zip_bytes({"a": b"x" * 5000}))
    place = content.index(b"PK\x01\x02") + 24
    assert int.from_bytes(content[place : place + 4], "little") == 5000
    content[place : place + 4] = (10).to_bytes(4, "little")
    message = refusal(tmp_path, folder, bytes(content))
    assert "larger than the 10 bytes announced" in message or "damaged" in message
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 10


def test_an_endless_header_is_refused(tmp_path, folder):
    """tarfile reads a long name into memory as a whole; a compressed one could be of any size."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    content = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    assert "a header of 1,073,741,824 bytes" in refusal(tmp_path, folder, content)


def test_two_members_at_one_place_are_refused(tmp_path, folder):
    with pytest.warns(UserWarning, match="Duplicate"):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as package:
            package.writestr("a", b"1")
            package.writestr("a", b"2")
    assert "two of its members become 'a'" in refusal(tmp_path, folder, target.getvalue())


@pytest.mark.parametrize("make", [zip_bytes, tar_bytes])
@pytest.mark.parametrize("keep", [0, 3, 0.5, -1])
def test_truncated_archives_are_named(tmp_path, folder, make, keep):
    whole = make({f"m{i}": bytes(j * i % 251 for j in range(5000)) for i in range(5)})
    content = whole[: int(len(whole) * keep) if keep == 0.5 else keep]
    assert "The archive some.archive is truncated or damaged" in refusal(tmp_path, folder, content)
    with pytest.raises(UserError, match="truncated or damaged"):
        check_archive(archive(tmp_path, content))


def test_a_plain_tar_and_other_compressions(tmp_path, folder):
    import bz2
    import lzma

    plain = gzip.decompress(tar_bytes({"a": b"x"}))
    for number, content in enumerate((plain, bz2.compress(plain), lzma.compress(plain))):
        below = folder / str(number)
        below.mkdir()
        assert unpack(archive(tmp_path, content), below, everything) == {"a": 1}


def test_a_web_page_under_an_archives_name_is_named(tmp_path, folder):
    assert "truncated or damaged" in refusal(tmp_path, folder, b"<html>" + b" " * 2000)
