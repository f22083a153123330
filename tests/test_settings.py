"""The configuration file: every key good and bad."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from banger.paths import Paths
from banger.settings import KvmChoice, VmmChoice, load_settings, parse_settings


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"HOME": str(tmp_path)})


def _write(paths: Paths, content: bytes) -> None:
    paths.config.mkdir(parents=True)
    (paths.config / "config.toml").write_bytes(content)


def test_a_missing_file_means_the_defaults(paths: Paths) -> None:
    settings = load_settings(paths)
    assert settings == parse_settings({})
    assert settings.default_image_name == "debian-bookworm"
    assert settings.vmm is VmmChoice.AUTO
    assert settings.kvm is KvmChoice.AUTO
    assert settings.ssh_key_path is None
    assert settings.debian_mirror is None
    assert settings.disk_mib == 8192
    assert 1 <= settings.vcpus <= 4
    assert 1024 <= settings.memory_mib <= 8192


def test_every_key_is_read(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    _write(
        paths,
        b"""
default_image_name = "other"
debian_mirror = "http://mirror.invalid/debian"
firecracker_bin = "/opt/firecracker"
kvm = "off"
ssh_key_path = "~/.ssh/id"
vmm = "qemu"
[vm_defaults]
vcpu = 3
memory_mib = 777
disk_size = "16G"
""",
    )
    settings = load_settings(paths)
    assert settings.default_image_name == "other"
    assert settings.debian_mirror == "http://mirror.invalid/debian"
    assert settings.firecracker_bin == "/opt/firecracker"
    assert settings.kvm is KvmChoice.OFF
    assert settings.ssh_key_path == Path("/home/me/.ssh/id")
    assert settings.vmm is VmmChoice.QEMU
    assert (settings.vcpus, settings.memory_mib, settings.disk_mib) == (3, 777, 16384)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("default_image_name", ""),
        ("default_image_name", 5),
        ("debian_mirror", "ftp://mirror.invalid"),
        ("debian_mirror", "http://mirror.invalid/a b"),
        ("debian_mirror", ["http://mirror.invalid"]),
        ("firecracker_bin", False),
        ("kvm", "yes"),
        ("kvm", True),
        ("kvm", []),
        ("ssh_key_path", "keys/id"),
        ("ssh_key_path", 1),
        ("vmm", "vmware"),
        ("vmm", {"name": "qemu"}),
        ("vm_defaults", []),
        ("vm_defaults", "big"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_key(key: str, value: Any) -> None:
    with pytest.raises(BangerError, match=key) as caught:
        parse_settings({key: value})
    assert caught.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vcpu", 0),
        ("vcpu", 33),
        ("vcpu", "2"),
        ("vcpu", 1.0),
        ("vcpu", True),
        ("memory_mib", 127),
        ("memory_mib", -1),
        ("memory_mib", "1G"),
        ("disk_size", "63M"),
        ("disk_size", "17T"),
        ("disk_size", 16777217),
        ("disk_size", True),
        ("disk_size", 1.5),
        ("disk_size", "big"),
    ],
)
def test_a_bad_default_for_machines_is_refused(key: str, value: Any) -> None:
    with pytest.raises(BangerError) as caught:
        parse_settings({"vm_defaults": {key: value}})
    assert caught.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize("value", ["64M", 64, "16T"])
def test_the_smallest_and_largest_disk_are_taken(value: Any) -> None:
    assert parse_settings({"vm_defaults": {"disk_size": value}}).disk_mib in (64, 16 << 20)


@pytest.mark.parametrize(
    ("values", "meant"),
    [({"vmmm": "qemu"}, "vmm"), ({"vm_default": {}}, "vm_defaults"), ({"vm_defaults": {"vcpus": 2}}, "vcpu")],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(values: dict[str, Any], meant: str) -> None:
    with pytest.raises(BangerError) as caught:
        parse_settings(values)
    assert caught.value.reason is Reason.BAD_INPUT
    assert repr(meant) in caught.value.hint


@pytest.mark.parametrize("content", [b"vmm = ", b"vmm = 'qemu'\nvmm = 'qemu'", b"\xff\xfe", b"a = 1 b = 2", b"\0"])
def test_what_is_not_toml_is_refused_by_the_name_of_the_file(paths: Paths, content: bytes) -> None:
    _write(paths, content)
    with pytest.raises(BangerError, match=r"config\.toml") as caught:
        load_settings(paths)
    assert caught.value.reason is Reason.BAD_INPUT


def test_a_bad_value_in_the_file_is_refused_by_the_name_of_the_file(paths: Paths) -> None:
    _write(paths, b"vmm = 'vmware'")
    with pytest.raises(BangerError, match=r"config\.toml: vmm"):
        load_settings(paths)


def test_a_file_that_cannot_be_read_is_refused(paths: Paths) -> None:
    (paths.config / "config.toml").mkdir(parents=True)
    with pytest.raises(BangerError) as caught:
        load_settings(paths)
    assert caught.value.reason is Reason.IO


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(["default_image_name", "debian_mirror", "firecracker_bin", "kvm", "ssh_key_path", "vmm"])
_DEFAULTS = st.dictionaries(st.sampled_from(["vcpu", "memory_mib", "disk_size"]), _VALUES, max_size=3)


@given(st.dictionaries(_KEYS, _VALUES, max_size=4), _DEFAULTS | _VALUES)
def test_any_values_are_settings_or_refused(values: dict[str, Any], defaults: Any) -> None:
    with contextlib.suppress(BangerError):
        parse_settings({**values, "vm_defaults": defaults})
