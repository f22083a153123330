"""The base of a recipe that names a suite: a Debian system of its packages, as a layer.

    lock ─ system ─ layer

No machine is needed for it: mmdebstrap gives a tar.
"""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from blake3 import blake3

from pipelines.apt import find_mirrors, plan_lock
from pipelines.job import Job
from pipelines.mmdebstrap import make_system
from pipelines.oci.layer_writer import OUTPUTS
from pipelines.oci.limits import Limits
from pipelines.oci.overlay import write_changes
from pipelines.step import Step

# Without these there is no apt in it, or none that trusts anything.
_PACKAGES = ("apt", "debian-archive-keyring")
# As catalog/recipes/debian-bookworm/customize does it, for any suite.
_CUSTOMIZE = """\
set -eu
root=$1 suite=$2
# Where packages come from is the business of the machine that runs the image: it brings the lists of mirrors.
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/trusted.gpg.d/*
mkdir -p "$root/etc/apt/mirrors"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$root$keyring" ] || keyring=${keyring%.gpg}.pgp
cat >"$root/etc/apt/sources.list.d/debian.sources" <<SOURCES
Types: deb
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: $suite $suite-updates
Components: main
Signed-By: $keyring

Types: deb
URIs: mirror+file:/etc/apt/mirrors/debian-security.list
Suites: $suite-security
Components: main
Signed-By: $keyring
SOURCES
# Identity belongs to a machine, never to an image.
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/etc/resolv.conf"
: >"$root/etc/machine-id"
if [ -d "$root/var/lib/dbus" ]; then ln -sf /etc/machine-id "$root/var/lib/dbus/machine-id"; fi
# What differs from one build to the next and is of no use in an image.
rm -rf "$root"/var/log/apt "$root"/var/log/dpkg.log "$root"/var/log/alternatives.log "$root"/var/log/bootstrap.log \\
	"$root"/var/cache/ldconfig/aux-cache "$root"/var/cache/apt/*.bin "$root"/var/cache/debconf/*-old \\
	"$root"/var/lib/dpkg/*-old "$root"/etc/*- "$root"/root/.ssh
"""


def plan_suite(name: str, suite: str, packages: Sequence[str], debian_mirror: str | None, limits: Limits) -> Step:
    """Outputs: `blob` and `index`. What the suite has now is asked when the recipe is built."""
    lock = plan_lock(f"recipe-{name}", suite, sorted({*packages, *_PACKAGES}), "?essential", debian_mirror)

    def make(job: Job) -> None:
        customize = job.directory / "customize"
        customize.write_text(_CUSTOMIZE)
        hook = f'--customize-hook=sh {quote(str(customize))} "$1" {quote(suite)}'
        make_system(job, "system", find_mirrors(debian_mirror), "apt", [hook])

    system = Step(
        name=f"system:{name}",
        kind="suite-system",
        version=1,
        build=make,
        outputs=("system",),
        parameters={"customize": blake3(_CUSTOMIZE.encode()).hexdigest()},
        inputs={"lock": lock.output("lock")},
    )
    return Step(
        name=f"layer:{name}",
        kind="system-layer",
        version=1,
        build=lambda job: write_changes(job, job.input("system"), limits, f"the system of {name}"),
        outputs=OUTPUTS,
        inputs={"system": system.output("system")},
    )
