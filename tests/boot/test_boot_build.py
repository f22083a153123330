"""Building from nothing: interrupted, killed, done by two at once, and the same bytes as somewhere else."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time

from tests.boot.host import BANGER, Home, Host, events, processes_with


def start_build(home: Home) -> tuple[subprocess.Popen[bytes], threading.Event, list[bytes]]:
    """`vm create` in the host's own namespace, where mirrors are; the event is set when the image's system is made."""
    process = subprocess.Popen(
        [BANGER, "vm", "create", "--no-start", "--json", "--name", "never"],
        env=home.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    reached, lines = threading.Event(), []

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if b'"progress"' in line and b"system:debian-bookworm" in line and b"installing" in line:
                reached.set()

    threading.Thread(target=read, daemon=True).start()
    return process, reached, lines


def finished(stderr: bytes) -> list[str]:
    return [event["step"] for event in events(stderr) if event["event"] == "finished"]


def test_an_empty_cache_interrupted_killed_and_filled_by_two_at_once(built: Home, empty_home: Home, host: Host) -> None:
    # Ctrl-C in the middle of the longest step: over within moments, no process, no half-made file.
    process, reached, _ = start_build(empty_home)
    assert reached.wait(240)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert processes_with(str(empty_home.root)) == []
    assert list((empty_home.store / "tmp").iterdir()) == []

    # kill -9: whatever it had started dies with it.
    process, reached, lines = start_build(empty_home)
    assert reached.wait(240)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while processes_with(str(empty_home.root)):
        assert time.monotonic() < deadline, processes_with(str(empty_home.root))
        time.sleep(0.05)
    before = finished(b"".join(lines))

    # Two at once, in a namespace with no way to boot yet: both end well, and nothing is made twice.
    both = [
        subprocess.Popen(
            [BANGER, "vm", "create", "--no-start", "--json", "--name", name],
            env=empty_home.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]
    said = [process.communicate(timeout=400) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    made = [step for _, stderr in said for step in finished(stderr) if not step.startswith("vm:")]
    steps = [step for step in made if not step.startswith(("image:", "kernel:"))]
    assert sorted(steps) == sorted(set(steps)), "a step was done twice"
    # What was finished before the kill is not done again.
    assert not set(steps) & set(before)
    assert "rootfs:debian-bookworm" in steps
    assert subprocess.run([BANGER, "cache", "verify"], env=empty_home.environment, check=False).returncode == 0

    # Both machines work, and the bytes are those of the other cache.
    for name in ("one", "two"):
        host.succeed("vm", "start", name, home=empty_home)
    for name in ("one", "two"):
        assert host.succeed("vm", "exec", name, "--", "hostname", home=empty_home).decode().strip() == name
    host.succeed("vm", "delete", "one", "two", home=empty_home)
    host.assert_nothing_left(empty_home)
    for kind, name in (("kernels", "debian-6.12"), ("images", "debian-bookworm")):
        assert empty_home.manifest(kind, name)["files"] == built.manifest(kind, name)["files"]


def test_cache_du_counts_what_is_held(host: Host) -> None:
    usage = json.loads(host.succeed("cache", "du", "--json"))
    assert usage["objects"] > 5
    assert 0 < usage["shared_bytes"] <= usage["size_bytes"]
