"""Programs that banger calls: there or not, of which version, and able to do what it asks of them."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from banger.doctor.finding import Check, Finding, Status, Subject, failed, passed, warned
from banger.doctor.programs import PATIENCE_S, find_version, parse_version
from banger.errors import BangerError, Reason
from banger.run import get_program, run
from pipelines.apt import get_keyring
from pipelines.erofs import plan_mkfs_from_stream
from pipelines.ext4 import make_from_stream, write_tar

_IMAGE_BYTES = 4 << 20
_HEAD_BYTES = 2048
# e2fsprogs' release notes: the first whose mke2fs -d takes a tar, by way of libarchive.
_FIRST_WITH_TAR = (1, 47, 1)


@dataclass(frozen=True)
class _Tool:
    """`question` is how it is asked for its version, if it has one of its own; without it `without` does not work."""

    name: str
    without: str
    question: str = ""
    status: Status = Status.FAIL


_TOOLS = (
    _Tool("setpriv", "nothing can be built, no machine's disks made", "--version"),
    _Tool("unshare", "nothing can be built", "--version"),
    _Tool("mount", "nothing can be built", "--version"),
    _Tool("mmdebstrap", "no kernel and no Debian image can be built", "--version"),
    _Tool("apt-get", "no kernel and no Debian image can be built", "--version"),
    _Tool("depmod", "no kernel can be built", "--version"),
    _Tool("mkfs.erofs", "no image can be built", "-V"),
    _Tool("mke2fs", "no machine's disks can be made", "-V"),
    _Tool("nft", "machines get no network", "--version"),
    _Tool("ssh-keygen", "no machine's keys can be made"),
    _Tool("ssh", "no machine can be entered", "-V"),
    _Tool("git", "no repository can be sent along", "--version", Status.WARN),
    _Tool("ip", "you cannot look at the network, as hints ask you to", "-V", Status.WARN),
)


def _make_check(tool: _Tool) -> Check:
    def check(_subject: Subject) -> Finding:
        try:
            path = get_program(tool.name)
        except BangerError as error:
            return Finding(tool.status, f"missing: {tool.without}", error.hint)
        return passed(f"{find_version(tool.name, tool.question)}, {path}" if tool.question else path)

    return check


def check_ext4(_subject: Subject) -> Finding:
    """By making a disk, as is done for each machine."""
    with tempfile.TemporaryDirectory(prefix="banger-doctor-") as folder:
        image = Path(folder) / "disk.ext4"
        with image.open("xb") as file:
            file.truncate(_IMAGE_BYTES)
        if make_from_stream(image, _write_folder):
            return passed("mke2fs reads tar")
    for program in ("tar", "debugfs"):
        get_program(program)
    version = parse_version(find_version("mke2fs", "-V"))
    package = "libarchive13" if version[:3] >= _FIRST_WITH_TAR else "e2fsprogs  # 1.47.1 or later"
    return warned(
        "mke2fs reads no tar here: disks are made by way of a folder, which takes longer",
        f"sudo apt-get install {package}",
    )


def check_erofs(_subject: Subject) -> Finding:
    """By making an image, as is done for each root filesystem."""
    tar = io.BytesIO()
    write_tar(tar, _write_folder)
    with tempfile.TemporaryDirectory(prefix="banger-doctor-") as folder:
        argv = plan_mkfs_from_stream(Path(folder) / "image.erofs")
        try:
            run(argv, stdin=tar.getvalue(), timeout_s=PATIENCE_S)
        except BangerError as error:
            if error.reason is Reason.MISSING_PROGRAM:
                raise
            version = find_version("mkfs.erofs", "-V")
            return failed(
                f"mkfs.erofs {version} makes no root filesystem of a tar: no image can be built",
                "sudo apt-get install erofs-utils  # 1.8 or later, with lz4",
            )
    return passed("mkfs.erofs makes root filesystems of tar")


def check_packages(subject: Subject, lists: Path = Path("/var/lib/apt/lists")) -> Finding:
    """What Debian's packages are verified by, and whether apt knows a mirror. (apt itself takes too long to say so.)"""
    get_keyring()
    if subject.settings.debian_mirror is not None:
        return passed("Debian's keyring is here, and debian_mirror is set")
    for path in (*lists.glob("*_InRelease"), *lists.glob("*_Release")):
        with path.open("rb") as file:
            if b"\nLabel: Debian\n" in file.read(_HEAD_BYTES):
                return passed("Debian's keyring is here, and apt knows a mirror of Debian")
    return warned(
        "apt knows no mirror of Debian: no kernel and no Debian image can be built",
        "sudo apt-get update, or set debian_mirror",
    )


def _write_folder(tar: tarfile.TarFile) -> None:
    folder = tarfile.TarInfo("folder")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(folder)


def _list_checks() -> Iterator[tuple[str, Check]]:
    for tool in _TOOLS:
        yield tool.name, _make_check(tool)
    yield "ext4", check_ext4
    yield "erofs", check_erofs
    yield "packages", check_packages


CHECKS: Mapping[str, Check] = dict(_list_checks())
