"""An ordinary user, who may call sudo for the network and nothing else of root's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.boot.host import Home, Host, run
from tests.ordinary_user import UID, become_user


def test_a_user_with_sudo_runs_a_machine_and_leaves_nothing(
    host: Host, built: Home, empty_home: Home, tmp_path: Path
) -> None:
    for kind in ("images", "kernels"):
        # A copy: a hard link would still be root's.
        shutil.copytree(built.state / kind, empty_home.state / kind)
    for folder in (empty_home.root, empty_home.runtime):
        run("chown", "-R", str(UID), str(folder))
    lab = Path("/run") / f"lab-{os.getpid()}"
    lab.mkdir()
    open_to_all = [*tmp_path.parents][:-2]
    modes = {folder: folder.stat().st_mode for folder in open_to_all}
    for folder in open_to_all:
        folder.chmod(0o755 | (modes[folder] & 0o1022))
    try:
        inside = ["ip", "netns", "exec", host.namespace, *become_user(lab)]
        command = host.argv("vm", "run", "--rm", "--", "sh", "-c", "id -u; exit 42")[4:]
        done = subprocess.run(
            [*inside, *command],
            env={**empty_home.environment, "USER": "lab", "LOGNAME": "lab"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
        )
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode & 0o7777)
        lab.rmdir()
        run("chown", "-R", "0", str(empty_home.root), str(empty_home.runtime))
    assert (done.returncode, done.stdout) == (42, b"0\n"), done.stderr.decode()
    host.assert_nothing_left(empty_home)
