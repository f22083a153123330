"""`kernel import`, `show`, `rm` and `image register` as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from banger.machine.record import Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.paths import Paths
from banger.run import resume
from banger.vmm.process import identify_self
from cache import Store
from tests.oci.layers import file, folder, layer
from tests.oci.registries import Faults, run_proxy
from tests.pipelines.kernels import ELF, RELEASE, give_default_kernel

if TYPE_CHECKING:
    from conftest import Cli

_ROOT = layer(folder("bin"), file("bin/sh", b"shell", mode=0o755))


@pytest.fixture
def paths(cli: Cli) -> Paths:
    """Of a user who has the default kernel, a kernel's file and a root filesystem's."""
    resume()
    paths = Paths.from_environment(cli.variables())
    give_default_kernel(Store.open(paths.store), paths.kernels)
    (cli.home / "vmlinux").write_bytes(ELF)
    (cli.home / "root.tar").write_bytes(_ROOT)
    return paths


def _succeed(cli: Cli, *words: str) -> str:
    done = cli.run(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _show(cli: Cli, noun: str, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(_succeed(cli, noun, "show", name))
    return shown


def _refusal(cli: Cli, *words: str) -> str:
    done = cli.run(*words)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("banger: "))


@pytest.mark.usefixtures("paths")
def test_a_kernel_is_imported_shown_listed_and_removed(cli: Cli) -> None:
    assert _succeed(cli, "kernel", "import", "mine", "vmlinux") == "mine\n"
    shown = _show(cli, "kernel", "mine")
    assert (shown["name"], shown["source"], shown["version"]) == ("mine", "import", RELEASE)
    assert {"vmlinux", "modules", "initramfs"} <= set(shown["objects"])
    assert "mine" in _succeed(cli, "kernel", "list")
    assert json.loads(_succeed(cli, "kernel", "import", "other", "vmlinux", "--json"))["name"] == "other"
    assert _succeed(cli, "kernel", "rm", "mine") == "mine\n"
    assert _succeed(cli, "kernel", "delete", "other") == "other\n"
    assert "mine" in _refusal(cli, "kernel", "show", "mine")


@pytest.mark.usefixtures("paths")
def test_of_several_kernels_the_good_ones_are_removed_and_the_bad_ones_told(cli: Cli) -> None:
    _succeed(cli, "kernel", "import", "mine", "vmlinux")
    done = cli.run("kernel", "rm", "one", "mine", "../x", "one")
    assert (done.returncode, done.stdout) == (1, "mine\n")
    told = [line for line in done.stderr.splitlines() if line.startswith("banger: ")]
    assert told == ["banger: there is no kernel 'one' here", "banger: '../x' is no name for kernel"]


def test_a_kernel_that_a_machine_boots_stays(cli: Cli, paths: Paths) -> None:
    _succeed(cli, "kernel", "import", "mine", "vmlinux")
    wish = Wish("box", "x", "mine", 1, 256, 64, True)
    machine = Records(paths.database).add(wish, DEFAULT_SUBNET, identify_self())
    assert "box" in _refusal(cli, "kernel", "rm", "mine")
    Records(paths.database).remove(machine)
    _succeed(cli, "kernel", "rm", "mine")


@pytest.mark.usefixtures("paths")
def test_an_imported_kernel_that_an_image_names_stays(cli: Cli) -> None:
    _succeed(cli, "kernel", "import", "mine", "vmlinux")
    _succeed(cli, "image", "register", "box", "--rootfs", "root.tar", "--kernel", "mine")
    _succeed(cli, "image", "register", "other", "--rootfs", "root.tar")
    assert "box" in _refusal(cli, "kernel", "rm", "mine")
    # That of the other one can be had again.
    _succeed(cli, "kernel", "rm", "debian-6.12")
    assert _succeed(cli, "image", "rm", "box") == "box\n"
    _succeed(cli, "kernel", "rm", "mine")


@pytest.mark.usefixtures("paths")
def test_an_image_is_registered_with_a_kernel_of_its_own(cli: Cli) -> None:
    assert _succeed(cli, "image", "register", "box", "--rootfs", "root.tar", "--kernel", "./vmlinux") == "box\n"
    assert _show(cli, "image", "box")["kernel"] == "box"
    assert _show(cli, "kernel", "box")["source"] == "import"
    # A word is a name first; one that is none may be a file.
    made = _succeed(cli, "image", "register", "a", "--rootfs", "root.tar", "--kernel", "vmlinux", "--json")
    assert json.loads(made)["kernel"] == "a"
    (cli.home / "box").write_bytes(b"no kernel")
    _succeed(cli, "image", "register", "b", "--rootfs", "root.tar", "--kernel", "box")
    assert _show(cli, "image", "b")["kernel"] == "box"


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("name", ["vmlinux", "bzImage"])
def test_no_catalog_is_asked_for_a_kernel_whose_file_is_here(cli: Cli, name: str) -> None:
    (cli.home / name).write_bytes(ELF)
    faults = Faults()
    with run_proxy("127.0.0.1:1", faults) as proxy:
        cli.configure(f'[[catalog]]\nref = "{proxy.host}/team/catalog:stable"\n')
        _succeed(cli, "image", "register", "a", "--rootfs", "root.tar", "--kernel", name)
        assert faults.seen == []
        # And there it would be seen.
        _refusal(cli, "image", "register", "a", "--rootfs", "root.tar", "--kernel", "missing")
        assert faults.seen != []


@pytest.mark.usefixtures("paths")
def test_a_folder_and_a_tar_on_standard_input_are_the_same_image(cli: Cli) -> None:
    (cli.home / "root").mkdir()
    subprocess.run(["tar", "-xf", "root.tar", "-C", "root"], cwd=cli.home, check=True)
    _succeed(cli, "image", "register", "one", "--rootfs", "root")
    with (cli.home / "root.tar").open("rb") as stdin:
        words = [Path(sys.executable).with_name("banger"), "image", "register", "two", "--rootfs", "-"]
        subprocess.run(words, stdin=stdin, env=cli.variables(), cwd=cli.home, check=True, capture_output=True)
    assert _show(cli, "image", "one")["objects"]["rootfs"] == _show(cli, "image", "two")["objects"]["rootfs"]


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize(
    "words",
    [
        ["kernel", "import", "mine", "missing"],
        ["kernel", "import", "mine", "root.tar"],
        ["kernel", "import", "mine", "."],
        ["kernel", "import", "Mine", "vmlinux"],
        ["kernel", "import", "../x", "vmlinux"],
        ["kernel", "import", "mine", "vmlinux", "--initrd", "missing"],
        ["kernel", "import", "mine", "vmlinux", "--initrd", "root.tar"],
        ["kernel", "import", "mine", "vmlinux", "--modules", "missing"],
        ["kernel", "import", "mine", "vmlinux", "--modules", "root.tar"],
        ["kernel", "show", "mine"],
        ["image", "register", "mine", "--rootfs", "missing"],
        ["image", "register", "mine", "--rootfs", "vmlinux"],
        ["image", "register", "mine", "--rootfs", "-"],
        ["image", "register", "debian:12", "--rootfs", "root.tar"],
        ["image", "register", "mine", "--rootfs", "root.tar", "--kernel", "nope"],
        ["image", "register", "mine", "--rootfs", "root.tar", "--kernel", "./nope"],
        ["image", "register", "mine", "--rootfs", "root.tar", "--kernel", "./root.tar"],
        ["image", "register", "mine", "--rootfs", "vmlinux", "--kernel", "./vmlinux"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_refused_in_a_line_and_has_no_name(cli: Cli, words: list[str]) -> None:
    before = cli.left()
    _refusal(cli, *words)
    assert cli.left() == before
    reason = json.loads(cli.run(*words, "--json").stderr.splitlines()[-1])["error"]["reason"]
    assert reason in ("bad-input", "not-found", "corrupt")


@pytest.mark.parametrize(
    "words", [["kernel", "import", "mine"], ["image", "register", "mine"], ["kernel", "rm"]], ids=" ".join
)
def test_a_misuse_has_status_two(cli: Cli, words: list[str]) -> None:
    assert cli.run(*words).returncode == 2
