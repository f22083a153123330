"""The configuration file: every key good and bad."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from banger.paths import Paths
from banger.settings import FileSync, KvmChoice, VmmChoice, config_path, load_settings, parse_settings
from banger.settings.entry import Setting, TableList
from banger.settings.table import SETTINGS


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"HOME": str(tmp_path)})


def _write(paths: Paths, content: str) -> None:
    paths.config.mkdir(parents=True, exist_ok=True)
    config_path(paths).write_text(content)


def _refusal(paths: Paths, content: str) -> BangerError:
    _write(paths, content)
    with pytest.raises(BangerError) as caught:
        load_settings(paths, {})
    assert caught.value.reason is Reason.BAD_INPUT
    assert "\n" not in caught.value.message
    return caught.value


def test_a_missing_file_means_the_defaults(paths: Paths) -> None:
    settings = load_settings(paths, {})
    assert settings == parse_settings({})
    assert settings.default_image_name == "debian-bookworm"
    assert settings.vmm is VmmChoice.AUTO
    assert settings.kvm is KvmChoice.AUTO
    assert settings.ssh_key_path is None
    assert settings.debian_mirror is None
    assert settings.disk_mib == 8192
    assert settings.file_sync == ()
    assert 1 <= settings.vcpus <= 4
    assert 1024 <= settings.memory_mib <= 8192


def test_every_key_is_read(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    _write(
        paths,
        """
default_image_name = "other"
debian_mirror = "http://mirror.invalid/debian"
firecracker_bin = "~/bin/firecracker"
kvm = "off"
max_image_size = "1T"
ssh_key_path = "~/.ssh/id"
vmm = "qemu"
[vm_defaults]
vcpu = 3
memory_mib = 777
disk_size = "16G"
[[registry]]
host = "one.invalid:5000"
username = "me"
password = "secret"
ca = "~/ca.crt"
insecure = true
[[registry]]
host = "two.invalid"
[[file_sync]]
host = "~/.aws"
guest = "~/.aws"
[[file_sync]]
host = "/usr/bin/env"
guest = "/root/bin/./my//env"
mode = "0755"
""",
    )
    settings = load_settings(paths, {})
    assert settings.default_image_name == "other"
    assert settings.debian_mirror == "http://mirror.invalid/debian"
    assert settings.firecracker_bin == "/home/me/bin/firecracker"
    assert settings.kvm is KvmChoice.OFF
    assert settings.max_image_mib == 1 << 20
    assert settings.ssh_key_path == Path("/home/me/.ssh/id")
    assert settings.vmm is VmmChoice.QEMU
    assert (settings.vcpus, settings.memory_mib, settings.disk_mib) == (3, 777, 16384)
    assert list(settings.registries) == ["one.invalid:5000", "two.invalid"]
    one, two = settings.registries.values()
    assert (one.username, one.password, one.ca, one.insecure) == ("me", "secret", Path("/home/me/ca.crt"), True)
    assert (two.username, two.password, two.ca, two.insecure) == ("", "", None, False)
    assert settings.file_sync == (
        FileSync(Path("/home/me/.aws"), ".aws", None),
        FileSync(Path("/usr/bin/env"), "bin/my/env", 0o755),
    )


_TWO = {"host": "/a", "guest": "~/a"}, {"host": "/b", "guest": "~/b"}
# No key takes any of these.
_NEVER = ['""', "-1", "1e400", "nan", "[]", "{}", "1979-05-27", "07:32:00", '"\\u0000"', '"a\\nb"', "0x" + "f" * 5000]


def _keys() -> list[tuple[Setting[Any], str, str]]:
    """Each key with what has to stand before it in a file, and the name that a refusal calls it by."""
    found = []
    for setting in SETTINGS:
        if isinstance(setting, TableList):
            required = {field.key: field.example for field in setting.fields if field.is_required}
            for field in setting.fields:
                others = "".join(f"{key} = {value}\n" for key, value in required.items() if key != field.key)
                found.append((field, f"\n[[{setting.key}]]\n{others}", f"{setting.key}[1].{field.key}"))
        else:
            table = setting.key.rpartition(".")[0]
            found.append((setting, f"\n[{table}]\n" if table else "\n# é\n", setting.key))
    return found


@pytest.mark.parametrize("value", _NEVER, ids=lambda value: value[:12])
@pytest.mark.parametrize(("setting", "before", "name"), _keys(), ids=lambda part: part if isinstance(part, str) else "")
def test_a_value_of_the_wrong_kind_is_refused_with_file_line_key_and_what_is_allowed(
    paths: Paths, setting: Setting[Any], before: str, name: str, value: str
) -> None:
    refusal = _refusal(paths, f"{before}{setting.path[-1]} = {value}\n# the end\n")
    line = before.count("\n") + 1
    assert refusal.message.startswith(f"{config_path(paths)}, line {line}: {name} must be {setting.allowed}")


@pytest.mark.parametrize(("setting", "before", "name"), _keys(), ids=lambda part: part if isinstance(part, str) else "")
def test_the_example_of_each_key_is_taken(paths: Paths, setting: Setting[Any], before: str, name: str) -> None:
    # A name and a password go together.
    other = {"username": 'password = "x"\n', "password": 'username = "x"\n'}.get(setting.key, "")
    _write(paths, f"{before}{other}{setting.path[-1]} = {setting.example}\n")
    load_settings(paths, {})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("default_image_name = 5", "default_image_name"),
        ('debian_mirror = "ftp://mirror.invalid"', "debian_mirror"),
        ('debian_mirror = "http://mirror.invalid/a b"', "debian_mirror"),
        ('debian_mirror = "http:///debian"', "debian_mirror"),
        ('firecracker_bin = "bin/firecracker"', "firecracker_bin"),
        ('firecracker_bin = "~firecracker"', "firecracker_bin"),
        ('kvm = "yes"', "kvm"),
        ("kvm = true", "kvm"),
        ('kvm = "AUTO"', "kvm"),
        ('ssh_key_path = "keys/id"', "ssh_key_path"),
        ('ssh_key_path = "./id"', "ssh_key_path"),
        ('ssh_key_path = "~other/id"', "ssh_key_path"),
        ('vmm = "vmware"', "vmm"),
        ('max_image_size = "0"', "max_image_size"),
        ("max_image_size = 0", "max_image_size"),
        ("max_image_size = true", "max_image_size"),
        ('vm_defaults = "big"', "vm_defaults"),
        ("vm_defaults = []", "vm_defaults"),
        ("[[vm_defaults]]", "vm_defaults"),
        ("vm_defaults.vcpu = 0", "vm_defaults.vcpu"),
        ("vm_defaults.vcpu = 33", "vm_defaults.vcpu"),
        ('vm_defaults.vcpu = "2"', "vm_defaults.vcpu"),
        ("vm_defaults.vcpu = 1.0", "vm_defaults.vcpu"),
        ("vm_defaults.vcpu = true", "vm_defaults.vcpu"),
        ("[vm_defaults.vcpu]", "vm_defaults.vcpu"),
        ("vm_defaults.memory_mib = 127", "vm_defaults.memory_mib"),
        ("vm_defaults.memory_mib = 1048577", "vm_defaults.memory_mib"),
        ('vm_defaults.memory_mib = "1G"', "vm_defaults.memory_mib"),
        ('vm_defaults.disk_size = "63M"', "vm_defaults.disk_size"),
        ('vm_defaults.disk_size = "17T"', "vm_defaults.disk_size"),
        ("vm_defaults.disk_size = 16777217", "vm_defaults.disk_size"),
        ("vm_defaults.disk_size = true", "vm_defaults.disk_size"),
        ("vm_defaults.disk_size = 1.5", "vm_defaults.disk_size"),
        ('vm_defaults.disk_size = "-8G"', "vm_defaults.disk_size"),
        ('registry = ["a"]', "registry"),
        ('registry.host = "a"', "registry"),
        ('[[registry]]\nusername = "me"', "registry[1].host"),
        ('[[registry]]\nhost = "https://a"', "registry[1].host"),
        ('[[registry]]\nhost = "a b"', "registry[1].host"),
        ('[[registry]]\nhost = "a"\n[[registry]]\nhost = "a"', "registry[2].host"),
        ('[[registry]]\nhost = "a"\nusername = "me"', "registry[1].username"),
        ('[[registry]]\nhost = "a"\npassword = "me"', "registry[1].password"),
        ('[[registry]]\nhost = "a"\nca = "ca.crt"', "registry[1].ca"),
        ('[[registry]]\nhost = "a"\ninsecure = "yes"', "registry[1].insecure"),
        ("file_sync = 1", "file_sync"),
        ('[[file_sync]]\nhost = "/a"', "file_sync[1].guest"),
        ('[[file_sync]]\nguest = "~/a"', "file_sync[1].host"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_the_name_of_its_key(paths: Paths, text: str, key: str) -> None:
    assert f": {key} " in _refusal(paths, text).message


@pytest.mark.parametrize("host", ["a", "./a", "../a", "~", "~root/a", "a/~/b", "$HOME/a", "file:///a"])
def test_a_host_path_of_file_sync_that_depends_on_where_one_stands_is_refused(paths: Paths, host: str) -> None:
    text = f'[[file_sync]]\nhost = "/a"\nguest = "~/a"\n[[file_sync]]\nhost = "{host}"\nguest = "~/a"\n'
    assert ", line 5: file_sync[2].host must be" in _refusal(paths, text).message


@pytest.mark.parametrize(
    "guest",
    [
        "a",
        "/",
        "/a",
        "/rootless/a",
        "//root/a",
        "/home/root/a",
        "~",
        "~/",
        "~/.",
        "~//",
        "~root/a",
        "/root",
        "/root/",
        "~/..",
        "~/../etc/passwd",
        "~/a/../../etc",
        "/root/../etc",
        "/root/a/..",
        "~/a\\u0000b",
        "~/a\\u001bb",
        "~/a\\u009bb",
        "~/a\\nb",
        "~/a\\u007f",
        "~/repo",
        "~/repo/a",
        "/root/./repo",
        "~/.ssh/authorized_keys",
        "/root/.ssh//authorized_keys",
        "~/.ssh/./authorized_keys/a",
        "~/" + "n" * 256,
        "~/" + "é" * 128,
    ],
)
def test_a_guest_path_of_file_sync_that_leads_elsewhere_is_refused(paths: Paths, guest: str) -> None:
    text = f'[[file_sync]]\nhost = "/a"\nguest = "~/a"\n[[file_sync]]\nhost = "/a"\nguest = "{guest}"\n'
    assert ", line 6: file_sync[2].guest must be" in _refusal(paths, text).message


@pytest.mark.parametrize(
    ("guest", "meant"),
    [
        ("~/a", "a"),
        ("/root/a", "a"),
        ("/root//a/./b/", "a/b"),
        ("~/repository", "repository"),
        ("~/a/repo", "a/repo"),
        ("~/.ssh", ".ssh"),
        ("~/.ssh/config", ".ssh/config"),
        ("~/...", "..."),
        ("~/~/root", "~/root"),
        ("~/two words ünï", "two words ünï"),
        ("~/" + "n" * 255, "n" * 255),
    ],
)
def test_a_guest_path_is_one_from_root_s_home_on(guest: str, meant: str) -> None:
    assert parse_settings({"file_sync": [{"host": "/a", "guest": guest}]}).file_sync[0].guest == meant


@pytest.mark.parametrize(
    "mode", ["0o755", 493, 755, '"755x"', '"0o755"', '"1777"', '"04755"', '"rwx"', '"0888"', '"75"', '"-644"', '" 644"']
)
def test_a_mode_that_is_not_octal_text_is_refused(paths: Paths, mode: object) -> None:
    text = f'[[file_sync]]\nhost = "/a"\nguest = "~/a"\nmode = {mode}\n'
    assert ", line 4: file_sync[1].mode must be" in _refusal(paths, text).message


@pytest.mark.parametrize(("mode", "meant"), [("0755", 0o755), ("755", 0o755), ("0000", 0), ("0777", 0o777)])
def test_a_mode_is_read_as_chmod_does(mode: str, meant: int) -> None:
    assert parse_settings({"file_sync": [{**_TWO[0], "mode": mode}]}).file_sync[0].mode == meant


@pytest.mark.parametrize("value", ["64M", 64, "16T"])
def test_the_smallest_and_largest_disk_are_taken(value: Any) -> None:
    assert parse_settings({"vm_defaults": {"disk_size": value}}).disk_mib in (64, 16 << 20)


@pytest.mark.parametrize(
    ("text", "line", "key", "hint"),
    [
        ("vmmm = 'qemu'", 1, "vmmm", "did you mean 'vmm'?"),
        ("\n[vm_default]\n", 2, "vm_default", "did you mean 'vm_defaults'?"),
        ("[vm_defaults]\nvcpus = 2", 2, "vm_defaults.vcpus", "did you mean 'vcpu'?"),
        ("vm_defaults.memory = 2", 1, "vm_defaults.memory", "did you mean 'memory_mib'?"),
        ("[[file_sync]]\nhots = '/a'", 2, "file_sync[1].hots", "did you mean 'host'?"),
        ("[[registry]]\nhost='a'\n[[registry]]\nhost = 'b'\npasword = 'x'", 5, "registry[2].pasword", "'password'"),
        ("disk_size = '8G'", 1, "disk_size", "did you mean 'vm_defaults.disk_size'? It stands below [vm_defaults]"),
        ("[vm_defaults]\nkvm = 'off'", 2, "vm_defaults.kvm", "did you mean 'kvm'? It stands before the first [table]"),
        ("[[registry]]\nhost = 'a'\nvmm = 'qemu'", 3, "registry[1].vmm", "before the first [table]"),
        ("'a b\\n' = 1", 1, '"a b\\\\n"', "known: "),
        ("[a.b]", 1, "a", "known: "),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(
    paths: Paths, text: str, line: int, key: str, hint: str
) -> None:
    refusal = _refusal(paths, text)
    assert refusal.message == f"{config_path(paths)}, line {line}: {key} is not a known key"
    assert hint in refusal.hint


def test_a_refusal_shows_no_password(paths: Paths) -> None:
    for text in (
        "[[registry]]\nhost = 'a'\nusername = 'me'\npassword = ['hush']",
        "[[registry]]\nhost = 'a'\npassword = 'hush'",
        "debian_mirror = 'ftp://me:hush@mirror.invalid'",
    ):
        assert "hush" not in _refusal(paths, text).message


def test_a_long_value_is_not_told_whole(paths: Paths) -> None:
    assert len(_refusal(paths, f"vmm = '{'x' * 10_000}'").message) < 300


def test_a_file_that_cannot_be_read_is_refused(paths: Paths) -> None:
    (paths.config / "config.toml").mkdir(parents=True)
    with pytest.raises(BangerError) as caught:
        load_settings(paths, {})
    assert caught.value.reason is Reason.IO


def test_reading_a_missing_file_imports_neither_toml_nor_registries() -> None:
    program = "import sys, banger.settings as s; s.parse_settings({}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "banger.settings.table" in done.stdout.split()
    assert not {"tomllib", "pipelines.oci.registry", "click", "requests"} & set(done.stdout.split())


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_TOP = st.sampled_from([*(each.key for each in SETTINGS if "." not in each.key), "vm_defaults"])
_DEFAULTS = st.dictionaries(st.sampled_from(["vcpu", "memory_mib", "disk_size"]), _VALUES, max_size=3)
_ENTRIES = st.lists(
    st.dictionaries(st.sampled_from(["host", "guest", "mode", "username", "password", "ca"]), _VALUES, max_size=3),
    max_size=3,
)


@given(st.dictionaries(_TOP, _VALUES | _ENTRIES, max_size=4), _DEFAULTS | _VALUES)
def test_any_values_are_settings_or_refused(values: dict[str, Any], defaults: Any) -> None:
    with contextlib.suppress(BangerError):
        parse_settings({**values, "vm_defaults": defaults})
