"""The graph for the plain `doit` command, over the same store as `banger`.

`doit list --all` shows it; `doit rootfs:debian-bookworm`, `doit kernel:debian-6.12` or `doit image` build. An image of
a registry, or in a folder, is in the graph when it is asked for: `doit rootfs:debian:12`, `doit image:oci:./layout`.
"""

import sys

from banger.errors import BangerError
from banger.paths import Paths
from banger.settings import load_settings
from banger.targets import make_targets
from cache import Store
from catalog.kernels import list_kernel_recipes
from catalog.recipes import list_recipe_names
from pipelines.graph import Graph, format_task_name
from pipelines.reporter import Silent

# The store's records are the truth: doit's own database is not kept.
DOIT_CONFIG = {"backend": "sqlite3", "dep_file": ":memory:", "par_type": "thread", "num_process": 4, "verbosity": 0}


NOUNS = ("image", "rootfs", "home")


def find_references():
    """What the command line asks for by reference."""
    for word in sys.argv[1:]:
        if "=" in word and word.partition(":")[0] in NOUNS:
            sys.exit(f"error: doit cannot be asked for {word!r}: to it, '=' assigns a variable\nname it without one")
    asked = [word.partition(":") for word in sys.argv[1:]]
    return {name for noun, _, name in asked if noun in NOUNS and name}


def task_graph():
    """Everything that has a name, and what it is made of."""
    try:
        yield from plan_tasks()
    except BangerError as error:
        # doit would show where in the sources it was raised.
        sys.exit("\n".join(filter(None, (f"error: {error.message}", error.hint))))


def plan_tasks():
    paths = Paths.from_environment()
    store = Store.open(paths.store)
    targets = make_targets(paths, load_settings(paths), store, Silent())
    kernels = [targets.plan_kernel(recipe.name) for recipe in list_kernel_recipes()]
    names = {*list_recipe_names(), *(each.name for each in paths.images.list()), *find_references()}
    images = {name: targets.plan_image(name) for name in sorted(names)}
    nodes = [target.naming for target in (*kernels, *images.values())]
    known = set()
    for task in Graph(store, nodes, Silent()).tasks():
        known.add(task["name"])
        basename, _, name = task.pop("name").partition(":")
        yield {"basename": basename, "name": name, **task}
    # Other words for the same: a reference for the name that it has here, home for the step that makes it too.
    for reference, target in images.items():
        made_by = {"image": target.naming, **{role: artifact.step for role, artifact in target.artifacts.items()}}
        for noun in NOUNS:
            if f"{noun}:{reference}" not in known:
                needed = [format_task_name(made_by[noun].name)]
                yield {"basename": noun, "name": format_task_name(reference), "actions": None, "task_dep": needed}
