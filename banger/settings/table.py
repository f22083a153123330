"""The settings table: every key there is, with all that is known about it.

From it come the reading of the file, `banger config show` and `config init`, docs/config.md, the names of variables,
and what is said about a key that is wrong or not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from banger.settings import host, values
from banger.settings.entry import KeyPath, Setting, TableList, Wrong, format_value
from banger.settings.model import (
    DEFAULT_MAX_IMAGE_MIB,
    MAX_DISK_MIB,
    MAX_MEMORY_MIB,
    MAX_VCPUS,
    MIN_DISK_MIB,
    MIN_MEMORY_MIB,
    CacheSize,
    FileSync,
    KvmChoice,
    VmmChoice,
)
from banger.sizes import format_mib

if TYPE_CHECKING:
    from catalog.catalog import CatalogSource
    from pipelines.oci.registry import RegistryOptions

_A_PATH = "a path from / or ~/ on"

DEFAULT_IMAGE_NAME = Setting(
    key="default_image_name",
    parse=values.parse_text,
    allowed="the name or reference of an image, as text",
    default="debian-bookworm",
    about="The image of a new machine when `--image` does not name one.",
    example='"debian:12"',
    option="--image",
)
SSH_KEY_PATH = Setting[Path | None](
    key="ssh_key_path",
    parse=values.parse_path,
    allowed=_A_PATH,
    default=None,
    default_words="a key that banger makes for itself",
    about="The private key that opens the guests. It has to be there, with its public key beside it (`.pub`).",
    example='"~/.ssh/id_ed25519"',
    format=values.format_optional,
)
VMM = Setting(
    key="vmm",
    parse=values.one_of(VmmChoice),
    allowed='"auto", "firecracker" or "qemu"',
    default=VmmChoice.AUTO,
    about="The monitor that runs machines. `auto` is Firecracker where it is installed and KVM works, else QEMU.",
    example='"qemu"',
)
KVM = Setting(
    key="kvm",
    parse=values.one_of(KvmChoice),
    allowed='"auto", "force" or "off"',
    default=KvmChoice.AUTO,
    about="Whether machines run with KVM. `auto`: where `/dev/kvm` opens and the processor has vmx or svm; `force`: "
    "wherever it opens, whatever the processor says; `off`: never.",
    example='"off"',
)
FIRECRACKER_BIN = Setting(
    key="firecracker_bin",
    parse=values.parse_program,
    allowed="the name of a program, or a path from / or ~/ on",
    default="firecracker",
    about="The Firecracker program. A name is looked for on the `PATH`.",
    example='"/opt/firecracker/bin/firecracker"',
)
DEBIAN_MIRROR = Setting[str | None](
    key="debian_mirror",
    parse=values.parse_address,
    allowed="an address that begins with http:// or https://",
    default=None,
    default_words="that of the host's apt",
    about="Where Debian's packages come from: those of kernels and images, and those that a guest installs.",
    example='"http://mirror.example/debian"',
    format=values.format_address,
)
MAX_IMAGE_SIZE = Setting(
    key="max_image_size",
    parse=values.size_between(1),
    allowed='a size such as "64G", "512M" or a number of MiB',
    default=DEFAULT_MAX_IMAGE_MIB,
    about="What a layer of an image may unpack to, and all files of an image together. More is refused.",
    example='"16G"',
    format=format_mib,
)
AUTO_STOP_STALE_AFTER = Setting[int | None](
    key="auto_stop_stale_after",
    parse=values.parse_duration,
    allowed='a number with s, m, h or d, such as "90m"',
    default=None,
    default_words="never",
    about="A machine that runs and that nobody has used for so long is stopped by `bangerd`. Used is one that was "
    "started, has or had a session of banger's, or has an ssh connection open.",
    example='"8h"',
    format=values.format_duration,
)
DNS_LISTEN = Setting(
    key="dns.listen",
    parse=values.parse_listener,
    allowed='an IPv4 address and a port, such as "127.0.0.1:42069"',
    default=("127.0.0.1", 42069),
    about="Where `bangerd` answers for names in `.vm`, by UDP and TCP. [dns-routing.md](dns-routing.md) tells how the "
    "host comes to ask there.",
    example='"127.0.0.1:5353"',
    format=values.format_listener,
)
DAEMON_AUTOSTART = Setting(
    key="daemon.autostart",
    parse=values.parse_flag,
    allowed="true or false",
    default=True,
    about="Whether `bangerd` is started by the first command that starts a machine.",
    example="false",
    from_text=values.flag_of_text,
)
CACHE_MAX_SIZE = Setting(
    key="cache.max_size",
    parse=values.parse_cache_size,
    allowed='a size such as "20G", a number of MiB, or a part of the filesystem such as "20%"',
    default=CacheSize(percent=20),
    about="What the cache may have beyond what images, kernels and machines hold. When a build made it larger, what "
    "was not used for the longest time goes, down to nine tenths of it; never what was used within the hour.",
    example='"50G"',
    format=values.format_cache_size,
)
CACHE_REMOTE = Setting[str | None](
    key="cache.remote",
    parse=values.parse_repository,
    allowed='a repository of a registry, such as "registry.example.com/team/cache"',
    default=None,
    default_words="none",
    about="Where results of steps are looked up before they are built, and where `banger cache push` puts them.",
    example='"registry.example.com/team/cache"',
    format=values.format_optional,
)
CACHE_REMOTE_KEY = Setting[Path | None](
    key="cache.remote_key",
    parse=values.parse_path,
    allowed=_A_PATH,
    default=None,
    default_words="none: whoever can write there is trusted",
    about="cosign's public key that the results there have to be signed with.",
    example='"~/keys/cache.pub"',
    format=values.format_optional,
)
VCPU = Setting(
    key="vm_defaults.vcpu",
    parse=values.number_between(1, MAX_VCPUS),
    allowed=f"a whole number from 1 to {MAX_VCPUS}",
    default=host.LEAST_VCPUS,
    default_words="a quarter of the host's, 1 to 4",
    about="Virtual processors of a new machine.",
    example="4",
    derive=host.find_vcpus,
    from_text=values.number_of_text,
    option="--vcpu",
)
MEMORY_MIB = Setting(
    key="vm_defaults.memory_mib",
    parse=values.number_between(MIN_MEMORY_MIB, MAX_MEMORY_MIB),
    allowed=f"a whole number of MiB from {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB}",
    default=host.LEAST_MEMORY_MIB,
    default_words="an eighth of the host's, 1 to 8 GiB",
    about="Memory of a new machine, in MiB. The option and the variable also take sizes such as `4G`.",
    example="4096",
    derive=host.find_memory_mib,
    from_text=values.mib_of_text,
    option="--memory",
)
DISK_SIZE = Setting(
    key="vm_defaults.disk_size",
    parse=values.size_between(MIN_DISK_MIB, MAX_DISK_MIB),
    allowed=f'a size from {format_mib(MIN_DISK_MIB)} to {format_mib(MAX_DISK_MIB)}, such as "16G" or a number of MiB',
    default=8192,
    about="Size of a new machine's system disk, and of its `/root`. Both are sparse: they grow with what is written.",
    example='"16G"',
    format=format_mib,
    option="--disk-size",
)


def _build_file_sync(found: Mapping[str, Any], _path: KeyPath) -> FileSync:
    return FileSync(found["host"], found["guest"], found["mode"])


FILE_SYNC = TableList(
    key="file_sync",
    fields=(
        Setting[Path | None](
            key="host",
            parse=values.parse_path,
            allowed=_A_PATH,
            default=None,
            about="The file or folder of the host. If it is a link, what it leads to.",
            example='"~/.config/gh"',
            format=values.format_optional,
            is_required=True,
        ),
        Setting(
            key="guest",
            parse=values.parse_guest_path,
            allowed="a path below ~/ or /root/ without .., and neither ~/.ssh/authorized_keys nor in ~/repo",
            default="",
            about="Where it comes to lie in the guest.",
            example='"~/.config/gh"',
            format=lambda path: f"~/{path}",
            is_required=True,
        ),
        Setting[int | None](
            key="mode",
            parse=values.parse_mode,
            allowed='permissions in octal and in quotes, from "0000" to "0777"',
            default=None,
            default_words='"0600"',
            about="The permissions of the files.",
            example='"0755"',
            format=values.format_mode,
        ),
    ),
    build=_build_file_sync,
    about="Files and folders of the host that every new machine gets a copy of, below `/root`, when it is made.\n"
    "\n"
    "A folder comes with all that is in it: folders keep their permissions, files get those of `mode`, links stay "
    "links. Everything belongs to root. What is not there, cannot be read, or is neither file, folder nor link is left "
    "out with a warning. Of two entries for the same path the later one counts.",
    example='[[file_sync]]\nhost = "~/.config/gh"\nguest = "~/.config/gh"\n\n'
    '[[file_sync]]\nhost = "~/bin/deploy"\nguest = "~/bin/deploy"\nmode = "0755"',
)


def _build_registry(found: Mapping[str, Any], path: KeyPath) -> RegistryOptions:
    from pipelines.oci.registry import RegistryOptions

    for one, other in (("username", "password"), ("password", "username")):
        if found[one] and not found[other]:
            raise Wrong((*path, one), f"must come with {'a' if other == 'password' else 'the'} {other}")
    return RegistryOptions(found["host"], found["username"], found["password"], found["ca"], found["insecure"])


def _refuse_twins(registries: Sequence[RegistryOptions]) -> None:
    seen: set[str] = set()
    for number, each in enumerate(registries):
        if each.host in seen:
            raise Wrong(("registry", number, "host"), f"must be that of no other entry, not {format_value(each.host)}")
        seen.add(each.host)


REGISTRY = TableList(
    key="registry",
    fields=(
        Setting(
            key="host",
            parse=values.parse_registry_host,
            allowed='the host of a registry, such as "registry.example.com:5000"',
            default="",
            about="Which registry, as in an image's reference: `docker.io`, `localhost:5000`. Each one once.",
            example='"registry.example.com:5000"',
            is_required=True,
        ),
        Setting(
            key="username",
            parse=values.parse_text,
            allowed="text that is not empty",
            default="",
            default_words="none",
            about="Who banger says that it is.",
            example='"me"',
        ),
        Setting(
            key="password",
            parse=values.parse_text,
            allowed="text that is not empty",
            default="",
            default_words="none",
            about="The password of that user. Whoever can read the file can read it.",
            example='"secret"',
            is_secret=True,
        ),
        Setting[Path | None](
            key="ca",
            parse=values.parse_path,
            allowed=_A_PATH,
            default=None,
            default_words="those that the host trusts",
            about="A file with the certificates that the registry's own may be signed by, in PEM form.",
            example='"~/certs/example-ca.crt"',
            format=values.format_optional,
        ),
        Setting(
            key="insecure",
            parse=values.parse_flag,
            allowed="true or false",
            default=False,
            about="Whether an unknown certificate, or plain http, will do.",
            example="true",
        ),
    ),
    build=_build_registry,
    about="What banger has to know about a registry. [oci-import.md](oci-import.md) tells where else passwords may be.",
    example='[[registry]]\nhost = "registry.example.com:5000"\nusername = "me"\npassword = "secret"\n'
    'ca = "~/certs/example-ca.crt"',
    check=_refuse_twins,
)


def _build_catalog(found: Mapping[str, Any], _path: KeyPath) -> CatalogSource:
    from catalog.catalog import CatalogSource

    return CatalogSource(found["ref"], found["key"])


CATALOG = TableList(
    key="catalog",
    fields=(
        Setting(
            key="ref",
            parse=values.parse_catalog_reference,
            allowed='a repository of a registry with a tag, such as "registry.example.com/team/catalog:stable"',
            default="",
            about="Where the catalog is.",
            example='"registry.example.com/team/catalog:stable"',
            is_required=True,
        ),
        Setting[Path | None](
            key="key",
            parse=values.parse_path,
            allowed=_A_PATH,
            default=None,
            default_words="none: whoever can write there is trusted",
            about="cosign's public key, in PEM form. Nothing that is not signed with it is used.",
            example='"~/keys/team.pub"',
            format=values.format_optional,
        ),
    ),
    build=_build_catalog,
    about="A catalog of images and kernels that somebody publishes, asked before banger's own recipes and in the order "
    "of the file. [image-catalog.md](image-catalog.md) tells how to make one.",
    example='[[catalog]]\nref = "registry.example.com/team/catalog:stable"\nkey = "~/keys/team.pub"',
)

# In the order in which they are shown. TOML wants keys without a table before all tables.
SETTINGS: tuple[Setting[Any] | TableList[Any], ...] = (
    DEFAULT_IMAGE_NAME,
    SSH_KEY_PATH,
    VMM,
    KVM,
    FIRECRACKER_BIN,
    DEBIAN_MIRROR,
    MAX_IMAGE_SIZE,
    AUTO_STOP_STALE_AFTER,
    VCPU,
    MEMORY_MIB,
    DISK_SIZE,
    DNS_LISTEN,
    DAEMON_AUTOSTART,
    CACHE_MAX_SIZE,
    CACHE_REMOTE,
    CACHE_REMOTE_KEY,
    FILE_SYNC,
    REGISTRY,
    CATALOG,
)
SCALARS: tuple[Setting[Any], ...] = tuple(each for each in SETTINGS if isinstance(each, Setting))


@dataclass(frozen=True)
class Variable:
    """A variable of the environment that has no key of its own."""

    name: str
    about: str
    is_secret: bool = False


VARIABLES = (
    Variable("BANGER_REGISTRY_HOST", "The registry that the next two are for."),
    Variable("BANGER_REGISTRY_USERNAME", "Counts when the registry's entry has none."),
    Variable("BANGER_REGISTRY_PASSWORD", "Comes with it.", is_secret=True),
    Variable("BANGER_REGISTRY_CA", "A file with certificates, for all registries."),
    Variable("BANGER_PUBLISH_TO", "Where `publish` puts images and kernels: `registry.example.com/team`."),
    Variable("BANGER_PUBLISH_VERSION", "What is published is called by it."),
    Variable("BANGER_SIGNING_KEY", "The private key to sign with: the path of its file, or PEM.", is_secret=True),
    Variable("COSIGN_PASSWORD", "Opens that key.", is_secret=True),
)
