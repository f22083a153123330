"""`vm run --rm -- true` against the shortest script that does it by hand.

The script starts the same monitor with the same artifacts, on disks and a TAP made beforehand; it tries ssh until
`true` has run, and kills the monitor.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from common import describe, describe_machine, host

from banger.machine.lifecycle import plan_spec
from banger.machine.machines import Machines
from banger.machine.record import Records
from banger.paths import Paths
from banger.settings import load_settings
from banger.vmm.monitor import choose_monitor
from banger.vmm.qemu import Qemu
from tests.boot.host import Host

_TIMES = int(sys.argv[1]) if len(sys.argv) > 1 else 5


def by_hand(machine: Host, name: str) -> float:
    paths = Paths.from_environment(machine.home.environment)
    machines = Machines(Records(paths.database), paths, load_settings(paths))
    record = machines.records.get(name)
    monitor = choose_monitor(machines.settings).monitor
    assert isinstance(monitor, Qemu), "the script by hand is written for QEMU"
    spec = plan_spec(machines, record, monitor)
    spec.runtime_dir.mkdir(parents=True, exist_ok=True)
    access = machines.access(record)
    ssh = ["ssh", "-F", "none", "-i", str(access.identity), "-o", f"UserKnownHostsFile={access.known_hosts}"]
    ssh += ["-o", f"HostKeyAlias={name}", "-o", "ConnectTimeout=1", f"root@{record.address}", "true"]
    inside = ["ip", "netns", "exec", machine.namespace]
    begin = time.perf_counter()
    with subprocess.Popen(inside + monitor.plan_command(spec)) as process:
        while subprocess.run(inside + ssh, stderr=subprocess.DEVNULL, check=False).returncode != 0:
            time.sleep(0.05)
        process.kill()
    return time.perf_counter() - begin


def with_banger(machine: Host) -> float:
    begin = time.perf_counter()
    machine.succeed("vm", "run", "--rm", "--", "true")
    return time.perf_counter() - begin


def main() -> None:
    describe_machine()
    with host() as machine:
        machine.succeed("vm", "run", "--rm", "--", "true")
        hand, ours = [], []
        for _ in range(_TIMES):
            # New disks every time: the first boot of a machine differs from the second.
            machine.succeed("vm", "create", "--no-start", "--name", "by-hand")
            record = json.loads(machine.succeed("vm", "show", "by-hand"))
            # Through banger's own network code, so that firewall and addresses are the same.
            code = (
                "from ipaddress import IPv4Address; from banger import network; "
                f"network.connect(network.DEFAULT_SUBNET, IPv4Address('{record['address']}'), nat=True)"
            )
            machine.inside(sys.executable, "-c", code)
            hand.append(by_hand(machine, "by-hand"))
            machine.succeed("vm", "delete", "by-hand")
            ours.append(with_banger(machine))
    one, other = describe("by hand", hand), describe("banger vm run --rm -- true", ours)
    print(f"banger / by hand = {other / one:.3f}")


if __name__ == "__main__":
    main()
