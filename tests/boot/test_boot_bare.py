"""An image that has nothing: no init, no libc, no ssh server, no users. The guest runtime brings what it lacks."""

from __future__ import annotations

import time

from tests.boot.bare import register_bare
from tests.boot.host import Home, Host


def test_a_root_with_busybox_alone_gives_ssh_and_stops_cleanly(host: Host, clean_home: Home) -> None:
    register_bare(clean_home)
    host.succeed("vm", "run", "--detach", "--name", "bare", "--image", "bare", "--memory", "256M", home=clean_home)
    script = "id -un; pwd; echo $((6 * 7)); /bin/busybox cat /etc/hostname; /bin/busybox touch /etc/kept /root/kept"
    assert host.succeed("vm", "exec", "bare", "--", "sh", "-c", script, home=clean_home) == b"root\n/root\n42\nbare\n"
    assert host.banger("vm", "exec", "bare", "--", "sh", "-c", "exit 255", home=clean_home).returncode == 255
    data = bytes(range(256)) * 4096
    assert host.succeed("vm", "exec", "bare", "--", "/bin/busybox", "cat", stdin=data, home=clean_home) == data
    begin = time.monotonic()
    host.succeed("vm", "stop", "bare", home=clean_home)
    assert time.monotonic() - begin < 90, "it was killed, not stopped"
    host.succeed("vm", "start", "bare", home=clean_home)
    host.succeed("vm", "exec", "bare", "--", "/bin/busybox", "ls", "/etc/kept", "/root/kept", home=clean_home)
    host.succeed("vm", "delete", "bare", home=clean_home)
    host.assert_nothing_left(clean_home)
