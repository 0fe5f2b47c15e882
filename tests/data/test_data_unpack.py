"""Unpacking: only wanted regular files, only inside the folder."""

import io
import random
import tarfile
import zipfile

import pytest

from covector.data.unpack import unpack
from covector.errors import DataError

EVIL = ["../evil", "/evil", "good/../../evil", "..\\evil", "C:/evil"]


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as handle:
        for name, content in members.items():
            handle.writestr(name, content)
    return path


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as handle:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            handle.addfile(info, io.BytesIO(content))
    return path


def make_deb(path, members):
    """An ar archive of `debian-binary` (4 bytes), a one-byte member (padded) and data.tar.xz."""
    data = make_tar(path.with_suffix(".data"), members, "w:xz").read_bytes()
    parts = [(b"debian-binary", b"2.0\n"), (b"odd", b"!"), (b"data.tar.xz", data)]
    content = b"!<arch>\n"
    for name, body in parts:
        header = name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"100644".ljust(8)
        content += header + str(len(body)).encode().ljust(10) + b"`\n" + body + b"\n" * (len(body) % 2)
    path.write_bytes(content)
    return path


MAKERS = {"p.zip": make_zip, "p.tar.gz": make_tar, "p.deb": make_deb}


@pytest.mark.parametrize("file", MAKERS)
def test_wanted_members_arrive_with_their_bytes_and_others_do_not(tmp_path, file):
    packed = MAKERS[file](tmp_path / file, {"a/x.txt": b"\x00one", "a/b/y.txt": b"two", "z.bin": b"no"})
    unpack(packed, tmp_path / "out", ("a/*.txt",))
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert found == {"a/x.txt": b"\x00one", "a/b/y.txt": b"two"}


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("file", MAKERS)
def test_a_member_outside_the_folder_refuses_the_whole_archive(tmp_path, file, evil):
    (tmp_path / "deep").mkdir()
    packed = MAKERS[file](tmp_path / "deep" / file, {"good/x": b"1", evil: b"2"})
    with pytest.raises(DataError, match="outside the folder"):
        unpack(packed, tmp_path / "deep" / "out", ("good/x",))
    assert not (tmp_path / "deep" / "out").exists()
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "p.tar", "w") as handle:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        handle.addfile(info)
    with pytest.raises(DataError, match="link or a device"):
        unpack(tmp_path / "p.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pattern_without_a_member_is_an_error(tmp_path):
    packed = make_zip(tmp_path / "p.zip", {"a": b"1"})
    with pytest.raises(DataError, match=r"no member that matches 'b\*'"):
        unpack(packed, tmp_path / "out", ("a", "b*"))


@pytest.mark.parametrize("file", MAKERS)
def test_a_cut_archive_is_an_error_unless_only_its_end_mark_is_cut(tmp_path, file):
    content = random.Random(0).randbytes(10_000)  # does not compress: most cuts fall into it
    whole = MAKERS[file](tmp_path / file, {"a": content}).read_bytes()
    refused = 0
    for length in range(0, len(whole), 97):
        (tmp_path / file).write_bytes(whole[:length])
        try:
            unpack(tmp_path / file, tmp_path / "out", ("a",))
        except DataError:
            refused += 1
        else:
            assert (tmp_path / "out" / "a").read_bytes() == content
    assert refused >= 10_000 // 97
