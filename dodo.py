"""The graph for the plain `doit` command, over the same store as `banger`.

`doit list --all` shows it; `doit rootfs:debian-bookworm`, `doit kernel:debian-6.12` or `doit image` build.
"""

from banger.paths import Paths
from banger.settings import load_settings
from cache import Store
from catalog.kernels import list_kernel_recipes
from catalog.recipes import list_recipe_names
from pipelines.graph import Graph
from pipelines.reporter import Silent
from pipelines.targets import Targets

# The store's records are the truth: doit's own database is not kept.
DOIT_CONFIG = {"backend": "sqlite3", "dep_file": ":memory:", "par_type": "thread", "num_process": 4, "verbosity": 0}


def task_graph():
    """Everything that has a name, and what it is made of."""
    paths = Paths.from_environment()
    store = Store.open(paths.store)
    targets = Targets(store, paths.images, paths.kernels, load_settings(paths).debian_mirror)
    nodes = [targets.plan_kernel(recipe.name).naming for recipe in list_kernel_recipes()]
    nodes += [targets.plan_image(name).naming for name in list_recipe_names()]
    for task in Graph(store, nodes, Silent()).tasks():
        basename, _, name = task.pop("name").partition(":")
        yield {"basename": basename, "name": name, **task}
