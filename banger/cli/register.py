"""`banger image register`: an image of a root filesystem that the user has, if need be with a kernel of the user's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from banger.cli.app import App
from banger.cli.named import print_made
from banger.errors import BangerError, Reason
from catalog.names import parse_name

if TYPE_CHECKING:
    from pipelines.targets import Targets

_STDIN = "-"


def register_image(app: App, name: str, rootfs: str, kernel: str | None, as_json: bool) -> None:
    """Nothing has a name before all of it is built."""
    from pipelines.content import open_file, open_path, spool
    from pipelines.graph import build
    from pipelines.import_kernel import KernelFiles, plan_imported_kernel
    from pipelines.register import plan_registered

    parse_name(name, "an image")
    reporter = app.reporter(as_json)
    targets = app.targets(reporter)
    own = _find_file(targets, kernel)
    if rootfs == _STDIN:
        content = spool(sys.stdin.buffer, app.store.root, targets.limits.max_image_bytes)
    else:
        content = open_path(Path(rootfs))
    made = [] if own is None else [plan_imported_kernel(targets, name, KernelFiles(open_file(own)))]
    made.append(plan_registered(targets, name, content, kernel if own is None else name))
    build(
        app.store,
        [artifact.step for target in made for artifact in target.artifacts.values()],
        reporter,
        remote=targets.remote,
    )
    build(app.store, [target.naming for target in made], reporter)
    print_made(app.paths.images.get(name), as_json)


def _find_file(targets: Targets, kernel: str | None) -> Path | None:
    """The file that is meant, unless it is the name of a kernel. Raises NOT_FOUND for what is neither."""
    if kernel is None:
        return None
    if "/" in kernel:
        return Path(kernel)
    try:
        # A name that is known here goes before a file, and a file before asking anybody.
        targets.check_kernel(kernel, may_ask=False)
    except BangerError as error:
        # `bzImage` is no name at all.
        if error.reason in (Reason.NOT_FOUND, Reason.BAD_INPUT) and Path(kernel).is_file():
            return Path(kernel)
        if error.reason is not Reason.NOT_FOUND:
            raise
        targets.check_kernel(kernel, may_ask=True)
    return None
