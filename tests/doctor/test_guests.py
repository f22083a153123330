"""What new machines are made from, and what they are like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipelines.initramfs import runtime_version

if TYPE_CHECKING:
    from conftest import Lab


def _name(lab: Lab, kind: str, name: str, **details: str) -> None:
    folder = (lab.paths.images if kind == "image" else lab.paths.kernels).folder / name.replace(":", "%3A")
    folder.mkdir(parents=True)
    manifest = {"format": 1, "name": name, "files": {}, "records": {}, "details": details, "made_at": 0}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_effective_defaults_are_told_with_where_they_come_from(lab: Lab) -> None:
    assert lab.examine()["vm defaults"][1].endswith("8G disk (default)")
    lab.configure('[vm_defaults]\nvcpu = 3\ndisk_size = "16G"\n')
    lab.environment["BANGER_VM_DEFAULTS_MEMORY_MIB"] = "4G"
    assert lab.examine()["vm defaults"][1] == (
        "3 vCPU (file), 4G memory (environment, BANGER_VM_DEFAULTS_MEMORY_MIB), 16G disk (file)"
    )


def test_what_is_not_here_yet_is_made_when_it_is_needed(lab: Lab) -> None:
    rows = lab.examine()
    for check, command in (("default image", "banger image pull debian-bookworm"), ("kernel", "banger kernel pull")):
        assert rows[check][0] == "PASS"
        assert command in rows[check][1]


def test_what_is_here_is_told(lab: Lab) -> None:
    _name(lab, "image", "debian-bookworm", kernel="debian-6.12")
    _name(lab, "kernel", "debian-6.12", runtime=runtime_version())
    rows = lab.examine()
    assert rows["default image"][:2] == ("PASS", "debian-bookworm is here")
    assert rows["kernel"][:2] == ("PASS", "debian-6.12 is here, with the guest runtime of this banger")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("trixie/linux-image-cloud-amd64", "banger kernel build debian-6.12"),
        ("catalog", "banger kernel pull debian-6.12"),
        ("import", "import it again: banger kernel import debian-6.12 FILE"),
    ],
)
def test_a_kernel_with_the_runtime_of_another_banger_is_told(lab: Lab, source: str, expected: str) -> None:
    _name(lab, "kernel", "debian-6.12", runtime="0123456789ab", source=source)
    status, _, fix = lab.examine()["kernel"]
    assert (status, fix) == ("WARN", expected)


def test_an_image_of_a_registry_that_is_not_here_is_told(lab: Lab) -> None:
    lab.configure('default_image_name = "debian:12"\n')
    assert lab.examine()["default image"][::2] == ("WARN", "banger image pull debian:12")
    _name(lab, "image", "debian:12", kernel="debian-6.12")
    assert lab.examine()["default image"][0] == "PASS"


def test_a_kernel_that_nobody_has_fails(lab: Lab) -> None:
    _name(lab, "image", "debian-bookworm", kernel="lost-1.0")
    status, detail, fix = lab.examine()["kernel"]
    assert (status, fix) == ("FAIL", "banger kernel list --available")
    assert "lost-1.0" in detail


@pytest.mark.parametrize(("kind", "name"), [("image", "debian-bookworm"), ("kernel", "debian-6.12")])
def test_a_damaged_manifest_fails_with_its_folder(lab: Lab, kind: str, name: str) -> None:
    _name(lab, kind, name)
    names = lab.paths.images if kind == "image" else lab.paths.kernels
    (names.folder / name / "manifest.json").write_text("{")
    status, _, fix = lab.examine()["default image" if kind == "image" else "kernel"]
    assert status == "FAIL"
    assert str(names.folder / name) in fix


def test_a_key_of_the_settings_has_to_be_there_and_private(lab: Lab) -> None:
    assert lab.examine()["ssh key"][:2] == ("PASS", "a key of banger's own")
    lab.configure('ssh_key_path = "~/id"\n')
    key = lab.home / "id"
    assert lab.examine()["ssh key"][::2] == ("FAIL", f"ssh-keygen -t ed25519 -f {key}")
    key.touch(mode=0o644)
    assert f"{key}.pub" in lab.examine()["ssh key"][1]
    (lab.home / "id.pub").touch()
    assert lab.examine()["ssh key"][::2] == ("FAIL", f"chmod 600 {key}")
    key.chmod(0o600)
    assert lab.examine()["ssh key"][:2] == ("PASS", str(key))
