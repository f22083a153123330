"""What a new machine is made from, and what it is like when nobody says."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from shlex import quote

from banger.doctor.finding import Check, Finding, Subject, failed, passed, warned
from banger.guest.ssh import public_path
from banger.settings import Effective
from banger.settings.table import DISK_SIZE, MEMORY_MIB, VCPU
from banger.sizes import format_mib
from catalog.kernels import DEFAULT_KERNEL, find_kernel_recipe
from catalog.origin import tell_remake
from catalog.recipes import find_recipe
from pipelines.initramfs import runtime_version
from pipelines.targets import find_image

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_defaults(subject: Subject) -> Finding:
    """Each value with where it comes from."""
    effective = subject.configuration.effective
    settings = subject.settings
    return passed(
        f"{settings.vcpus} vCPU ({_tell_origin(effective[VCPU.key])}), "
        f"{format_mib(settings.memory_mib)} memory ({_tell_origin(effective[MEMORY_MIB.key])}), "
        f"{format_mib(settings.disk_mib)} disk ({_tell_origin(effective[DISK_SIZE.key])})"
    )


def check_image(subject: Subject) -> Finding:
    name = subject.settings.default_image_name
    if find_image(subject.paths.images, name) is not None:
        return passed(f"{name} is here")
    if subject.settings.catalogs or find_recipe(name) is not None:
        return passed(f"{name} is not here yet; the first vm run makes it, or: banger image pull {name}")
    return warned(
        f"{name} is not here, and has no recipe: the first vm run asks its registry", f"banger image pull {name}"
    )


def check_kernel(subject: Subject) -> Finding:
    name = _find_kernel_name(subject)
    kernel = subject.paths.kernels.find(name)
    if kernel is None:
        if subject.settings.catalogs or find_kernel_recipe(name) is not None:
            return passed(f"{name} is not here yet; the first vm run makes it, or: banger kernel pull {name}")
        return failed(f"there is no kernel {name}, which the default image wants", "banger kernel list --available")
    if kernel.details.get("runtime") != runtime_version():
        return warned(f"{name} has the guest runtime of another banger", tell_remake("kernel", name, kernel.details))
    return passed(f"{name} is here, with the guest runtime of this banger")


def check_key(subject: Subject) -> Finding:
    key = subject.settings.ssh_key_path
    if key is None:
        return passed("a key of banger's own")
    for path in (key, public_path(key)):
        if not path.is_file():
            return failed(f"ssh_key_path: there is no file {path}", f"ssh-keygen -t ed25519 -f {quote(str(key))}")
    if key.stat().st_mode & _OTHERS:
        return failed(f"ssh will not use {key}: others may read it", f"chmod 600 {quote(str(key))}")
    return passed(str(key))


def _find_kernel_name(subject: Subject) -> str:
    name = subject.settings.default_image_name
    image, recipe = find_image(subject.paths.images, name), find_recipe(name)
    if image is not None:
        return str(image.details.get("kernel", DEFAULT_KERNEL))
    return DEFAULT_KERNEL if recipe is None else recipe.kernel


def _tell_origin(value: Effective) -> str:
    return f"{value.origin}, {value.given_by}" if value.given_by else value.origin


CHECKS: Mapping[str, Check] = {
    "vm defaults": check_defaults,
    "default image": check_image,
    "kernel": check_kernel,
    "ssh key": check_key,
}
