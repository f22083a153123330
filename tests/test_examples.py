"""The examples beside the pages: what they run is there, and nothing secret stands in them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

_ROOT = Path(__file__).parents[1]
_WORKFLOWS = sorted((_ROOT / "docs/examples").glob("*.yml"))


@pytest.mark.parametrize("path", _WORKFLOWS, ids=lambda path: str(path.name))
def test_a_workflow_runs_tasks_and_targets_that_there_are(path: Path, tmp_path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    # YAML 1.1 reads a bare `on` as true.
    assert {"schedule", "workflow_dispatch"} <= set(workflow[True])
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    listed = subprocess.run(
        [Path(sys.executable).with_name("doit"), "list", "--all"], cwd=_ROOT, env=environment, capture_output=True
    )
    tasks = {line.split()[0] for line in listed.stdout.decode().splitlines() if line.strip()}
    asked = [word for command in commands if "doit" in command for word in command.split()[1:]]
    assert asked
    assert set(asked) <= tasks
    targets = re.findall(r"^([a-z-]+):.*##", (_ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.split()[1] for command in commands if command.startswith("make ")} <= set(targets)


@pytest.mark.parametrize("path", _WORKFLOWS, ids=lambda path: str(path.name))
def test_a_workflow_takes_what_is_secret_from_the_settings_of_its_repository(path: Path) -> None:
    text = path.read_text()
    for name, value in re.findall(r"^ +([A-Z_]*(?:PASSWORD|KEY|TOKEN)): +(.*)$", text, re.MULTILINE):
        assert re.fullmatch(r"\$\{\{ secrets\.[A-Z_]+ \}\}", value), name
    assert "BEGIN" not in text
