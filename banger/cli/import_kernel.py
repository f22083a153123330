"""`banger kernel import` and `rm`: kernels come and go."""

from __future__ import annotations

from pathlib import Path

from banger.cli.app import App
from banger.cli.named import print_made
from banger.errors import BangerError, Reason


def import_kernel(app: App, name: str, kernel: Path, initrd: Path | None, modules: Path | None, as_json: bool) -> None:
    from pipelines.content import open_file, open_path
    from pipelines.graph import build
    from pipelines.import_kernel import KernelFiles, plan_imported_kernel

    files = KernelFiles(
        open_file(kernel),
        None if initrd is None else open_file(initrd),
        None if modules is None else open_path(modules),
    )
    reporter = app.reporter(as_json)
    targets = app.targets(reporter)
    target = plan_imported_kernel(targets, name, files)
    build(app.store, [target.naming], reporter, remote=targets.remote)
    print_made(app.paths.kernels.get(name), as_json)


def remove_kernel(app: App, name: str) -> None:
    """Raises IN_USE while a machine boots it, or an image wants it and it could not be had again."""
    from pipelines.targets import IMPORTED

    found = app.paths.kernels.get(name)
    machines = [machine.name for machine in app.records.list() if machine.kernel == found.name]
    if machines:
        raise BangerError(
            f"the kernel {found.name!r} is in use by {', '.join(machines)}",
            reason=Reason.IN_USE,
            hint=f"banger vm delete {' '.join(machines)}",
        )
    images = [each.name for each in app.paths.images.list() if each.details.get("kernel") == found.name]
    if images and found.details.get("source") == IMPORTED:
        raise BangerError(
            f"the kernel {found.name!r} is that of the image {', '.join(images)}",
            reason=Reason.IN_USE,
            hint=f"banger image delete {' '.join(images)}",
        )
    app.paths.kernels.remove(found.name)
