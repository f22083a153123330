"""What the graph costs when there is nothing to do: planning, looking up and reporting everything but the machine."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from common import describe, describe_machine, host

_SCRIPT = """
import time
begin = time.perf_counter()
from banger.paths import Paths
from banger.settings import load_settings
from cache import Store
from pipelines.graph import build
from pipelines.reporter import Silent
from pipelines.targets import Targets
paths = Paths.from_environment()
imported = time.perf_counter()
store = Store.open(paths.store)
targets = Targets(store, paths.images, paths.kernels, load_settings(paths).debian_mirror)
image = targets.plan_image("debian-bookworm")
kernel = targets.plan_kernel(image.details["kernel"])
build(store, [image.naming, kernel.naming], Silent())
print(imported - begin, time.perf_counter() - imported)
"""


def main() -> None:
    describe_machine()
    with host() as machine:
        imports, graphs, wholes = [], [], []
        for number in range(12):
            begin = time.perf_counter()
            said = subprocess.check_output(
                [sys.executable, "-c", _SCRIPT], env=machine.home.environment, text=True, cwd=Path.home()
            )
            wholes.append(time.perf_counter() - begin)
            imported, built = map(float, said.split())
            imports.append(imported)
            graphs.append(built)
            if number == 0:
                # The first may have built everything.
                for figures in (imports, graphs, wholes):
                    figures.clear()
    describe("imports", imports)
    describe("graph of the default machine, all cached (doit included)", graphs)
    describe("a whole process that does both", wholes)


if __name__ == "__main__":
    main()
