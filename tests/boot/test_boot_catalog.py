"""From one home to another through a registry: what a CI job publishes boots where nothing can be built."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.host import DOIT, REPOSITORY, Home, Host

_ADDRESS = "127.0.0.1:5000"


@pytest.fixture
def registry(host: Host, tmp_path: Path) -> Iterator[str]:
    """`docker-registry` inside the namespace that stands for the host."""
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": _ADDRESS},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(config))
    inside = ["ip", "netns", "exec", host.namespace]
    server = subprocess.Popen([*inside, "docker-registry", "serve", str(tmp_path / "registry.yml")])
    try:
        for _ in range(200):
            if subprocess.run([*inside, "curl", "-fs", f"http://{_ADDRESS}/v2/"], capture_output=True).returncode == 0:
                break
            assert server.poll() is None
            time.sleep(0.05)
        yield _ADDRESS
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def other_home(tmp_path: Path) -> Iterator[Home]:
    """Where nothing is, and where no system can be built: its PATH has everything but mmdebstrap."""
    (tmp_path / "other").mkdir()
    home = Home(tmp_path / "other")
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in ("/usr/local/bin", "/usr/bin", "/bin"):
        for program in Path(folder).iterdir():
            if program.name != "mmdebstrap":
                with contextlib.suppress(FileExistsError):
                    (programs / program.name).symlink_to(program)
    home.environment["PATH"] = str(programs)
    yield home
    shutil.rmtree(home.runtime, ignore_errors=True)


def test_what_one_home_publishes_boots_in_another_that_can_build_nothing(
    host: Host, clean_home: Home, other_home: Home, registry: str, tmp_path: Path
) -> None:
    signing = {"BANGER_SIGNING_KEY": str(tmp_path / "team.key"), "COSIGN_PASSWORD": "a password"}
    make_keys = ["cosign", "generate-key-pair", "--output-key-prefix", "team"]
    subprocess.run(make_keys, cwd=tmp_path, env={**os.environ, **signing}, check=True, capture_output=True)

    def publish() -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", host.namespace, DOIT]
            + ["publish:debian-bookworm", "publish:kernel/debian-6.12", f"to={registry}/team"],
            cwd=REPOSITORY,
            env={**clean_home.environment, **signing},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = publish()
    assert first.count("team/catalog:stable is now at serial ") == 2
    second = publish()
    assert second.count(": 0 blobs uploaded; ") == 2
    assert second.count("is unchanged, at serial ") == 2

    config = other_home.root / "config/banger"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(
        f'[[catalog]]\nref = "{registry}/team/catalog:stable"\nkey = "{tmp_path}/team.pub"\n'
    )
    assert shutil.which("mmdebstrap", path=other_home.environment["PATH"]) is None
    done = host.banger("vm", "run", "--rm", "--no-build", "--", "cat", "/etc/os-release", home=other_home)
    assert done.returncode == 0, done.stderr.decode()
    assert b"VERSION_CODENAME=bookworm" in done.stdout
    steps = {
        line.split()[1].partition(":")[0] for line in done.stderr.decode().splitlines() if line.startswith("start")
    }
    assert steps == {"download", "keep", "image", "kernel", "mirrors", "vm"}
    # It is here now, and boots without the registry.
    shutil.rmtree(tmp_path / "registry")
    script = "cat /etc/apt/sources.list /etc/apt/sources.list.d/*; ls /lib/modules"
    done = host.banger("vm", "run", "--rm", "--no-pull", "--no-build", "--", "sh", "-c", script, home=other_home)
    assert done.returncode == 0, done.stderr.decode()
    assert b"bookworm" in done.stdout
    for kind, name in (("images", "debian-bookworm"), ("kernels", "debian-6.12")):
        here, there = (home.manifest(kind, name) for home in (clean_home, other_home))
        roles = there["files"].keys() & here["files"].keys()
        assert roles >= {"rootfs", "home"} or roles >= {"vmlinux", "modules", "initramfs"}
        assert {role: there["files"][role] for role in roles} == {role: here["files"][role] for role in roles}
        assert there["details"]["source"] == "catalog"
    host.assert_nothing_left(other_home)
