"""A machine as JSON."""

from __future__ import annotations

from dataclasses import asdict

import click

from banger.cli.app import App
from banger.cli.output import format_time, print_json
from banger.machine.record import Machine, State
from banger.workspace.record import find_workspace


def show_name(machine: Machine, as_json: bool) -> None:
    if as_json:
        print_json(describe_record(machine))
    else:
        click.echo(machine.name)


def describe(app: App, machine: Machine) -> dict[str, object]:
    described = describe_record(machine)
    folder = app.machines.folder(machine)
    described["disks"] = {
        name: {"path": str(path), "size_bytes": path.stat().st_size, "used_bytes": path.stat().st_blocks * 512}
        for name in ("system", "work")
        if (path := folder / f"{name}.ext4").exists()
    }
    described["log"] = str(app.machines.log(machine))
    workspace = find_workspace(folder)
    described["workspace"] = None if workspace is None else asdict(workspace)
    return described


def describe_record(machine: Machine) -> dict[str, object]:
    return {
        "id": machine.id,
        "name": machine.name,
        "state": machine.state,
        "address": str(machine.address),
        "image": machine.image,
        "kernel": machine.kernel,
        "vcpus": machine.vcpus,
        "memory_mib": machine.memory_mib,
        "disk_mib": machine.disk_mib,
        "nat": machine.nat,
        "monitor": machine.monitor,
        "pid": machine.process.pid if machine.process is not None and machine.state is State.RUNNING else None,
        "created_at": format_time(machine.created_at),
    }
