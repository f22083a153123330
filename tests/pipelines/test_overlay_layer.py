"""What an overlay of the real kernel holds, packed by the script of the guest's runtime, becomes a layer that says it.

The image with that layer on it is compared, file by file, with what the kernel shows of the overlay.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from cache import Store
from pipelines.graph import build
from pipelines.job import Job
from pipelines.oci.layer_writer import OUTPUTS
from pipelines.oci.limits import Limits
from pipelines.oci.overlay import LeaveOut, keep_all, plan_changes, write_changes
from pipelines.oci.rootfs import plan_rootfs
from pipelines.oci.stream import Cursor
from pipelines.oci.tar import Entry, Kind, read_entries
from pipelines.reporter import Silent
from pipelines.step import Step
from tests.oci.layers import device, file, folder, hardlink, layer
from tests.oci.tree import Tree, compare, read_erofs, read_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount an overlay")
_BUILD = (Path(__file__).parents[2] / "pipelines/runtime/build").read_text()
_CAPABILITY = struct.pack("<5I", 0x02000001, 0x2400, 0, 0, 0)
_WEIRD = b"weird \xff\n\xc3\xa9"

_BASE = """
mkdir -p etc var/lib/gone usr/bin keep/deep empty
echo old >etc/old; echo same >etc/same; chmod 640 etc/same; echo x >var/lib/gone/x
for n in 1 2 3 4; do echo $n >keep/$n; done
echo twice >keep/linked; ln keep/linked keep/again; ln -s ../etc to; echo deep >keep/deep/file
"""
_CHANGES = """
rm etc/old keep/1 keep/2 keep/3
echo more >>etc/same; chown 1000:70000 etc/same
rm -r var/lib/gone; mkdir var/lib/gone; echo y >var/lib/gone/y
rm -r keep/deep; echo file >keep/deep
rm to; mkdir to; echo in >to/in
rmdir empty; ln -s /nowhere empty
mv usr/bin usr/sbin; mv etc etc2; mkdir etc; echo new >etc/new
echo broken >>keep/again
echo one >new; ln new also; ln new usr/third; chmod 4755 new
mknod null c 1 3; mknod disk b 8 1; mkfifo pipe; mkdir -m 1777 sticky
truncate -s 3M sparse; printf end >>sparse; printf begin | dd of=sparse conv=notrunc status=none
truncate -s 1M holes
touch -d @-5.25 ancient; touch -d '2100-01-01 00:00:00.123456789' late
long=$(printf 'n%.0s' $(seq 120)); mkdir -p $long/$long; echo long >$long/$long/$long$long
"""


class Overlay:
    """A folder as the image, and what a script makes of it through an overlay."""

    def __init__(self, place: Path, image: str) -> None:
        self.place = place
        for name in ("lower", "upper", "work", "merged"):
            (place / name).mkdir()
        subprocess.run(["sh", "-ec", image], cwd=place / "lower", check=True)

    def change(self, *argv: str) -> Tree:
        """Run a program in it; gives the tree that the kernel shows afterwards."""
        script = """
            cd "$0" && mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work,redirect_dir=off,metacopy=off \\
                overlay merged
            cd merged && "$@" && cd .. && cp -a merged shown
        """
        subprocess.run(["unshare", "--mount", "sh", "-ec", script, str(self.place), *argv], check=True)
        return read_tree(self.place / "shown")

    def build(self, store: Store, leave_out: LeaveOut = keep_all) -> Tree:
        """The tree of the image that is made from the folder and a layer with the changes."""
        steps = [
            _plan_layer(pack(self.place / "lower", self.place / "lower.tar"), keep_all),
            _plan_layer(pack(self.place / "upper", self.place / "upper.tar"), leave_out),
        ]
        return build_tree(store, steps)


def pack(source: Path, tar: Path) -> Path:
    """By the script's own function."""
    function = "pack() {" + _BUILD.partition("pack() {")[2].partition("\n}\n")[0] + "\n}\n"
    report = 'report() { echo "$2"; exit; }\n'
    call = f"{report}{function}dev=/ bin=/usr/bin; pack '{source}' report '{tar}'"
    assert subprocess.run(["sh", "-c", call], capture_output=True, check=True, text=True).stdout == "whole\n"
    return tar


def _plan_layer(tar: Path, leave_out: LeaveOut) -> Step:
    def make(job: Job) -> None:
        write_changes(job, tar, Limits(), "the test", leave_out)

    return Step(f"layer:{tar.name}", "test", 1, make, OUTPUTS, parameters={"tar": str(tar)})


def build_tree(store: Store, layers: Sequence[Step]) -> Tree:
    rootfs = plan_rootfs("test", layers, Limits())["rootfs"]
    record = build(store, [rootfs.step], Silent()).record(rootfs.step)
    assert record is not None
    return read_erofs(store.path(record.outputs["rootfs"]))[0]


@needs_root
def test_what_was_changed_in_every_way_there_is_comes_out_as_it_was(store: Store, tmp_path: Path) -> None:
    overlay = Overlay(tmp_path, _BASE)
    marks = f"""
import os
os.setxattr("new", "security.capability", {_CAPABILITY!r})
os.setxattr("sparse", "user.note", b"with \\0 and \\n")
os.setxattr("sticky", "trusted.own", b"kept")
os.mkdir({_WEIRD!r}); open({_WEIRD + b"/" + _WEIRD!r}, "w").close()
"""
    shown = overlay.change("sh", "-ec", f'{_CHANGES}\npython3 -c "$1"', "sh", marks)
    assert compare(shown, overlay.build(store)) == {}


@needs_root
@pytest.mark.parametrize("seed", range(8))
def test_random_changes_come_out_as_they_were(seed: int, store: Store, tmp_path: Path) -> None:
    overlay = Overlay(tmp_path, _BASE)
    shown = overlay.change("sh", "-c", "\n".join(_make_changes(random.Random(seed))) + "\ntrue")
    assert compare(shown, overlay.build(store)) == {}


def _make_changes(dice: random.Random) -> list[str]:
    """Shell lines; those that make no sense where they stand fail, and are passed over."""
    names = ["etc", "keep", "keep/deep", "var/lib", "a", "a/b", "to", "empty"]

    def path() -> str:
        return f"{dice.choice(names)}/{dice.choice('1234xyz')}" if dice.random() < 0.7 else dice.choice(names)

    def line(number: int) -> str:
        return dice.choice(
            [
                f"rm -rf {path()}",
                f"mkdir -p {path()}",
                f"echo {number} >{path()}",
                f"echo {number} >>{path()}",
                f"ln -f {path()} {path()}",
                f"ln -sfn {path()} {path()}",
                f"mv -fT {path()} {path()}",
                f"chmod {dice.choice(['700', '4711', '1777'])} {path()}",
                f"rm -rf {path()} && mkdir -p {path()}",
                f"mknod {path()} c 1 {number}",
            ]
        )

    return [f"({line(number)}) 2>/dev/null" for number in range(60)]


def _read(*members: bytes, leave_out: LeaveOut = keep_all) -> list[Entry]:
    return list(plan_changes(read_entries(Cursor(iter([layer(*members)]), "the test")), leave_out))


def test_every_name_of_the_one_device_that_stands_for_deleted_files_is_a_whiteout() -> None:
    found = _read(device("a/b", b"3", 0, 0), hardlink("./a/c", "./a/b"), hardlink("d", "a/b"))
    assert [(each.path, each.kind) for each in found] == [
        ("a/.wh.b", Kind.FILE),
        ("a/.wh.c", Kind.FILE),
        (".wh.d", Kind.FILE),
    ]


def test_a_file_that_is_left_out_under_one_name_stays_whole_under_its_others() -> None:
    found = _read(
        file("secret/key", b"content", mode=0o600),
        hardlink("kept", "secret/key"),
        hardlink("secret/too", "secret/key"),
        hardlink("again", "secret/key"),
        leave_out=lambda path, _kind: path.startswith("secret/"),
    )
    assert [(each.path, each.kind, each.size, each.target) for each in found] == [
        ("kept", Kind.FILE, 7, ""),
        ("again", Kind.LINK, 0, "kept"),
    ]


def test_what_was_deleted_stays_deleted_where_all_else_is_left_out() -> None:
    found = _read(device("log/old", b"3", 0, 0), file("log/new"), leave_out=lambda _path, _kind: True)
    assert [each.path for each in found] == ["log/.wh.old"]


@pytest.mark.parametrize("name", [".wh.x", "a/.wh.x", ".wh..wh.plnk/x", ".wh."])
def test_a_file_whose_name_would_delete_another_is_refused(name: str) -> None:
    with pytest.raises(BangerError) as refused:
        _read(file(name))
    assert refused.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize("note", ["redirect", "metacopy"])
def test_what_has_its_content_elsewhere_is_refused(note: str) -> None:
    with pytest.raises(BangerError) as refused:
        _read(folder("moved", xattrs={f"trusted.overlay.{note}": b"/there"}))
    assert refused.value.reason is Reason.BAD_INPUT


def test_overlayfs_s_own_notes_do_not_come_along() -> None:
    notes = {"trusted.overlay.opaque": b"y", "trusted.overlay.origin": b"\0\xfb", "trusted.mine": b"kept"}
    found = _read(folder("f", xattrs=notes))
    assert [(each.path, each.xattrs) for each in found] == [("f", {"trusted.mine": b"kept"}), ("f/.wh..wh..opq", {})]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(BangerError) as refused:
        _read(file(name))
    assert refused.value.reason is Reason.BAD_INPUT
