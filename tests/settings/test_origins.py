"""Where a value comes from: the host, the file, a variable, an option, the later over the earlier."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from banger.errors import BangerError, Reason
from banger.paths import Paths
from banger.settings import Origin, VmmChoice, config_path, host, load_configuration, load_settings
from banger.settings.entry import Setting
from banger.settings.table import SCALARS, VCPU


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"HOME": str(tmp_path)})


def _write(paths: Paths, content: str) -> None:
    paths.config.mkdir(parents=True)
    config_path(paths).write_text(content)


def test_a_variable_takes_the_place_of_its_key_in_the_file(paths: Paths) -> None:
    _write(paths, 'vmm = "qemu"\ndefault_image_name = "one"\n[vm_defaults]\nvcpu = 3\n')
    environment = {
        "BANGER_VMM": "firecracker",
        "BANGER_VM_DEFAULTS_VCPU": "2",
        "BANGER_VM_DEFAULTS_MEMORY_MIB": "2G",
        "BANGER_VM_DEFAULTS_DISK_SIZE": "100",
        "BANGER_SSH_KEY_PATH": "/keys/id",
        "BANGER_DEFAULT_IMAGE_NAME": "",
    }
    settings = load_settings(paths, environment)
    assert settings.vmm is VmmChoice.FIRECRACKER
    assert (settings.vcpus, settings.memory_mib, settings.disk_mib) == (2, 2048, 100)
    assert settings.ssh_key_path == Path("/keys/id")
    assert settings.default_image_name == "one"


@pytest.mark.parametrize("setting", SCALARS, ids=lambda setting: setting.key)
def test_a_variable_is_read_as_its_key_is(paths: Paths, setting: Setting[Any]) -> None:
    (example,) = tomllib.loads(f"x = {setting.example}").values()
    found = load_configuration(paths, {setting.variable: str(example)})
    assert found.get(setting) == setting.parse(example)
    assert found.effective[setting.key].origin is Origin.ENVIRONMENT
    with pytest.raises(BangerError) as caught:
        load_settings(paths, {setting.variable: "\x1b"})
    assert caught.value.reason is Reason.BAD_INPUT
    assert caught.value.message.startswith(f"{setting.variable} must be {setting.allowed}, not ")


@pytest.mark.parametrize("text", ["0", "-1", "33", "1.5", "two", "²", " 2", "9" * 5000])
def test_a_variable_that_is_no_number_is_refused_by_its_name(paths: Paths, text: str) -> None:
    with pytest.raises(BangerError, match=r"^BANGER_VM_DEFAULTS_VCPU must be a whole number from 1 to 32, not"):
        load_settings(paths, {"BANGER_VM_DEFAULTS_VCPU": text})


def test_a_wrong_value_in_the_file_is_refused_also_when_a_variable_takes_its_place(paths: Paths) -> None:
    _write(paths, "vmm = 'vmware'")
    with pytest.raises(BangerError, match="line 1: vmm"):
        load_settings(paths, {"BANGER_VMM": "qemu"})


def test_an_option_takes_the_place_of_everything_else(paths: Paths) -> None:
    _write(paths, "[vm_defaults]\nvcpu = 3\n")
    found = load_configuration(paths, {"BANGER_VM_DEFAULTS_VCPU": "2"}, {"--vcpu": "1", "--memory": "4G"})
    assert found.get(VCPU) == 1
    assert found.effective["vm_defaults.vcpu"].origin is Origin.FLAG
    assert found.settings().memory_mib == 4096
    with pytest.raises(BangerError, match=r"^--memory must be .*, not \"4x\"$"):
        load_configuration(paths, {}, {"--memory": "4x"})


@pytest.mark.parametrize(
    ("cpus", "pages", "vcpus", "memory_mib", "origin"),
    [
        (1, 1 << 18, 1, 1024, Origin.DEFAULT),
        (4, 1 << 21, 1, 1024, Origin.HOST),
        (12, 1 << 22, 3, 2048, Origin.HOST),
        (64, 1 << 27, 4, 8192, Origin.HOST),
        (None, -1, 1, 1024, Origin.DEFAULT),
    ],
)
def test_a_machine_s_size_follows_the_host_within_limits(
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    cpus: int | None,
    pages: int,
    vcpus: int,
    memory_mib: int,
    origin: Origin,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else pages)
    found = load_configuration(paths, {})
    assert (found.settings().vcpus, found.settings().memory_mib) == (vcpus, memory_mib)
    assert {found.effective[f"vm_defaults.{key}"].origin for key in ("vcpu", "memory_mib")} == {origin}
    assert found.effective["vm_defaults.disk_size"].origin is Origin.DEFAULT


def test_a_host_that_does_not_tell_its_memory_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", refuse)
    assert host.find_memory_mib() is None
