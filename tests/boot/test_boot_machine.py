"""One machine, asked many questions; at the end it is stopped and started."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.boot.host import BANGER, HOST_ADDRESS, OUTSIDE_ADDRESS, Host, run

NAME = "asked"


@pytest.fixture(scope="module")
def machine(host: Host) -> Iterator[dict[str, Any]]:
    host.succeed("vm", "run", "--detach", "--name", NAME, "--memory", "2G", "--disk-size", "4G", "--vcpu", "2")
    yield json.loads(host.succeed("vm", "show", NAME))
    host.succeed("vm", "delete", NAME)
    host.assert_nothing_left()


@pytest.fixture
def ask(host: Host, machine: dict[str, Any]) -> Any:
    def ask_guest(*words: str) -> str:
        return host.succeed("vm", "exec", NAME, "--", *words).decode()

    return ask_guest


def test_it_is_what_was_asked_for(machine: dict[str, Any], ask: Any) -> None:
    assert (machine["state"], machine["vcpus"], machine["memory_mib"], machine["disk_mib"]) == (
        "running",
        2,
        2048,
        4096,
    )
    assert ask("nproc").strip() == "2"
    assert 1700 < int(ask("sh", "-c", "awk '/MemTotal/ {print $2}' /proc/meminfo")) // 1024 <= 2048
    for folder in ("/", "/root", "/var/lib/docker"):
        assert 3500 < int(ask("df", "--output=size", "-m", folder).split()[-1]) <= 4096


def test_its_own_name_address_and_keys_are_on_it(machine: dict[str, Any], ask: Any, host: Host) -> None:
    assert ask("hostname").strip() == NAME
    assert ask("getent", "hosts", NAME).split()[0] == machine["address"]
    assert machine["address"] in ask("ip", "-4", "addr", "show", "eth0")
    known = (host.home.state / "vms" / machine["id"] / "known_hosts").read_text().split()[1:]
    assert ask("cat", "/etc/ssh/ssh_host_ed25519_key.pub").split() == known
    assert len(ask("cat", "/etc/machine-id").strip()) == 32


def test_the_exit_status_is_the_commands(host: Host, machine: dict[str, Any]) -> None:
    for status in (0, 1, 42, 127, 254, 255):
        assert host.banger("vm", "exec", NAME, "--", "sh", "-c", f"exit {status}").returncode == status
    assert host.banger("vm", "exec", NAME, "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert host.banger("vm", "exec", NAME, "--", "no-such-program").returncode == 127


def test_arguments_arrive_as_given(ask: Any) -> None:
    words = [
        "a b",
        "",
        "it's",
        'say "hi"',
        "$HOME `id` $(id)",
        "line\nbreak",
        "ünï¢ödé ☃",
        "*",
        "\\",
        "-x",
        "--",
        ";&|<>",
    ]
    assert ask("printf", "%s\\0", *words).split("\0")[:-1] == words


def test_ten_mebibytes_pass_through_unchanged(host: Host, machine: dict[str, Any]) -> None:
    data = os.urandom(10 << 20)
    assert host.succeed("vm", "exec", NAME, "--", "cat", stdin=data) == data


def test_stdout_and_stderr_stay_apart(host: Host, machine: dict[str, Any]) -> None:
    done = host.banger("vm", "exec", NAME, "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_sshd_lets_in_one_key_and_nothing_else(ask: Any, host: Host, machine: dict[str, Any]) -> None:
    settings = dict(line.split(" ", 1) for line in ask("sshd", "-T").splitlines() if " " in line)
    assert settings["permitrootlogin"] in ("prohibit-password", "without-password")
    assert settings["passwordauthentication"] == "no"
    assert settings["kbdinteractiveauthentication"] == "no"
    assert settings["authorizedkeysfile"] == "/root/.ssh/authorized_keys"
    assert settings["strictmodes"] == "yes"
    refused = subprocess.run(
        ["ip", "netns", "exec", host.namespace, "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentityAgent=none"]
        + ["-o", "IdentityFile=/nonexistent", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        + [f"root@{machine['address']}", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr
    assert ask("stat", "-c", "%a %U", "/root", "/root/.ssh", "/root/.ssh/authorized_keys").split("\n")[:3] == [
        "700 root",
        "700 root",
        "600 root",
    ]


def test_another_host_key_is_refused(host: Host, machine: dict[str, Any]) -> None:
    known = host.home.state / "vms" / machine["id"] / "known_hosts"
    right = known.read_text()
    other = host.home.root / "other-key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other))
    try:
        known.write_text(f"{NAME} {' '.join(other.with_suffix('.pub').read_text().split()[:2])}\n")
        done = host.banger("vm", "exec", NAME, "--", "true")
    finally:
        known.write_text(right)
        other.unlink()
        other.with_suffix(".pub").unlink()
    assert done.returncode == 1
    assert b"host key" in done.stderr.lower()


def test_the_tools_of_the_default_image_are_there(ask: Any) -> None:
    for program in ("git", "jq", "curl", "gcc", "make", "python3", "vim.tiny", "less", "sudo", "docker"):
        assert ask("which", program).strip(), program
    assert re.match(r"\d+\.\d+", ask("mise", "--version"))
    assert ask("sh", "-c", "systemctl --failed --no-legend | wc -l").strip() == "0"


def test_kernel_modules_load(ask: Any) -> None:
    assert "dummy" in ask("sh", "-c", "modprobe dummy && lsmod")


def test_docker_runs_a_container_on_the_disk_itself(ask: Any) -> None:
    info = ask("docker", "info")
    assert "Storage Driver: overlay2" in info
    assert "Backing Filesystem: extfs" in info
    script = """
        set -e
        mkdir -p /tmp/image/bin
        cp /run/banger/bin/busybox /tmp/image/bin/busybox
        ln -s busybox /tmp/image/bin/echo
        tar -C /tmp/image -c . | docker import - own >/dev/null
        docker run --rm own /bin/echo from a container
    """
    assert ask("sh", "-c", script) == "from a container\n"


def test_the_outside_is_reached_through_nat(host: Host, ask: Any) -> None:
    server = subprocess.Popen(
        ["ip", "netns", "exec", host.outside, "python3", "-u", "-m", "http.server", "8000"],
        cwd="/usr/share/keyrings",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        assert ask("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{OUTSIDE_ADDRESS}:8000/") == "200"
        assert server.stdout.readline().startswith(HOST_ADDRESS)
    finally:
        server.kill()
        server.wait()


def test_list_show_and_logs_tell_of_it(host: Host, machine: dict[str, Any]) -> None:
    assert [each["name"] for each in json.loads(host.succeed("vm", "list", "--json"))] == [NAME]
    assert host.succeed("vm", "list", "--quiet") == f"{NAME}\n".encode()
    assert b"running" in host.succeed("vm", "ps")
    assert json.loads(host.succeed("vm", "show", machine["id"][:6]))["name"] == NAME
    assert b"Linux version" in host.succeed("vm", "logs", NAME)


def test_images_are_shared_not_copied(machine: dict[str, Any], host: Host) -> None:
    folder = host.home.state / "vms" / machine["id"]
    digest = host.home.manifest("images", "debian-bookworm")["files"]["rootfs"][0]
    assert (folder / "rootfs").samefile(host.home.store / "objects" / digest[:2] / digest)
    # Two disks of its own, of which only what was written takes space.
    for disk in machine["disks"].values():
        assert disk["size_bytes"] == 4 << 30
        assert disk["used_bytes"] < 256 << 20
        assert Path(disk["path"]).stat().st_mode & 0o777 == 0o600


def test_a_shell_has_a_terminal_and_its_status_is_passed_on(host: Host, machine: dict[str, Any]) -> None:
    output, status = talk(host, ["vm", "ssh", NAME], b"tty; stty size; echo $((6*7))-; exit 7\n")
    assert "/dev/pts/" in output
    assert "42-" in output
    assert status == 7


def test_nobody_is_waited_for_with_a_second_start(host: Host, machine: dict[str, Any]) -> None:
    done = host.banger("vm", "start", NAME)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"runs already" in done.stderr


def test_data_survives_a_clean_stop_and_start(host: Host, machine: dict[str, Any], ask: Any) -> None:
    ask("sh", "-c", "echo in etc >/etc/marker; echo in root >/root/marker")
    host.succeed("vm", "stop", NAME)
    assert host.monitors() == []
    assert host.taps() == []
    assert json.loads(host.succeed("vm", "list", "--json")) == []
    done = host.banger("vm", "exec", NAME, "--", "true")
    assert (done.returncode, b"vm start" in done.stderr) == (1, True)
    host.succeed("vm", "start", NAME)
    assert ask("cat", "/etc/marker", "/root/marker") == "in etc\nin root\n"
    said = ask("journalctl", "--boot=-1", "--no-pager", "--lines=40")
    assert "Reached target poweroff.target" in said
    assert "Journal stopped" in said


def talk(host: Host, words: list[str], typed: bytes, timeout_s: float = 120) -> tuple[str, int]:
    """Run banger on a terminal; `typed` is sent when a shell's prompt has come."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("ip", ["ip", "netns", "exec", host.namespace, BANGER, *words], host.home.environment)
    output, sent, deadline = b"", False, time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            block = os.read(terminal, 65536)
        except OSError:
            break
        if not block:
            break
        output += block
        if not sent and b"# " in output:
            os.write(terminal, typed)
            sent = True
    os.close(terminal)
    return output.decode("utf-8", "replace"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
