"""The graph for the plain `doit` command, over the same store as `banger`.

`doit list --all` shows it; `doit rootfs:debian-bookworm`, `doit kernel:debian-6.12` or `doit image` build. An image of
a registry, or in a folder, is in the graph when it is asked for: `doit rootfs:debian:12`, `doit image:oci:./layout`.
Everything is built here: no catalog is asked.

`doit publish:debian-bookworm publish:kernel/debian-6.12 to=registry.example.com/team` publishes them, signed with the
key in BANGER_SIGNING_KEY (docs/image-catalog.md). BANGER_PUBLISH_TO and BANGER_PUBLISH_VERSION take the place of `to=`
and `version=`.
"""

import atexit
import os
import sys
from contextlib import ExitStack
from dataclasses import replace

from doit import get_var
from doit.exceptions import TaskFailed

from banger.errors import BangerError, Reason
from banger.garbage import collect_if_large
from banger.paths import Paths
from banger.push import describe_pushed, push_results
from banger.settings import load_settings
from banger.targets import make_catalogs, make_remote, make_targets
from cache import Store
from catalog.bundle import Kind
from catalog.kernels import list_kernel_recipes
from catalog.recipes import list_recipe_names
from pipelines.bundle import format_bundle_name, plan_pack
from pipelines.doit_parts import format_task_name
from pipelines.graph import Graph
from pipelines.oci.signatures import load_signing_key
from pipelines.publish import describe_published, parse_place, parse_version, publish_named
from pipelines.reporter import Silent
from pipelines.targets import is_word

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


def open_store(paths, settings):
    """Nothing that doit was told of goes away before it ends; then the cache is tidied."""
    store = Store.open(paths.store)
    ending = ExitStack()
    atexit.register(ending.close)
    ending.callback(collect_if_large, store, paths, settings.cache_max_size)
    return ending.enter_context(store.leased("doit"))


def task_graph():
    """Everything that has a name, and what it is made of."""
    try:
        yield from plan_tasks()
    except BangerError as error:
        # doit would show where in the sources it was raised.
        sys.exit("\n".join(filter(None, (f"error: {error.message}", error.hint))))


def plan_tasks():
    paths = Paths.from_environment()
    settings = load_settings(paths)
    store = open_store(paths, settings)
    targets = replace(
        make_targets(paths, settings, store, Notes()), catalogs=None, remote=make_remote(settings, store, Notes())
    )
    named = {*(recipe.name for recipe in list_kernel_recipes()), *(each.name for each in paths.kernels.list(leave_out))}
    kernels = dict(plan_each(targets.plan_kernel, named))
    names = {*list_recipe_names(), *(each.name for each in paths.images.list(leave_out)), *find_references()}
    images = dict(plan_each(targets.plan_image, names))
    published = [(Kind.KERNEL, each) for each in kernels.values()]
    published += [(Kind.IMAGE, each) for each in images.values() if is_word(each.name)]
    nodes = [target.naming for target in (*kernels.values(), *images.values())]
    nodes += [plan_pack(kind, target) for kind, target in published]
    known = set()
    for task in Graph(store, nodes, Notes(), remote=targets.remote).tasks():
        known.add(task["name"])
        basename, _, name = task.pop("name").partition(":")
        yield {"basename": basename, "name": name, **task}
    catalogs = make_catalogs(paths, settings, store)
    for kind, target in published:
        needed = [target.naming.name, f"bundle:{format_bundle_name(kind, target.name)}"]
        yield {
            "basename": "publish",
            "name": format_bundle_name(kind, target.name),
            "doc": f"put {target.naming.name} into a registry and its catalog",
            "actions": [(publish, [settings, targets, kind, target.name, catalogs])],
            "task_dep": [format_task_name(each) for each in needed],
            "io": {"capture": False},
        }
    # Other words for the same: a reference for the name that it has here, home for the step that makes it too.
    for reference, target in images.items():
        made_by = {"image": target.naming, **{role: artifact.step for role, artifact in target.artifacts.items()}}
        for noun in NOUNS:
            if f"{noun}:{reference}" not in known:
                needed = [format_task_name(made_by[noun].name)]
                yield {"basename": noun, "name": format_task_name(reference), "actions": None, "task_dep": needed}


def plan_each(plan, names):
    """One that is damaged stands in the way of nobody who did not ask for it."""
    for name in sorted(names):
        try:
            yield name, plan(name)
        except BangerError as error:
            if any(name in word for word in sys.argv[1:]):
                raise
            leave_out(error)


def leave_out(error):
    Notes().note(f"left out: {error.message}")


def publish(settings, targets, kind, name, catalogs):
    """doit's action: prints what was uploaded. With a remote cache, the steps that made it go there too."""
    try:
        to = get_var("to", os.environ.get("BANGER_PUBLISH_TO"))
        if not to:
            raise BangerError(
                "there is no place to publish to",
                reason=Reason.BAD_INPUT,
                hint="name a folder of a registry: doit publish:NAME to=registry.example.com/team",
            )
        version = get_var("version", os.environ.get("BANGER_PUBLISH_VERSION")) or None
        done = publish_named(
            targets,
            kind,
            name,
            parse_place(to),
            catalogs,
            load_signing_key(),
            None if version is None else parse_version(version),
            Notes(),
        )
        print(describe_published(done))
        if settings.cache_remote is not None:
            names = targets.images if kind is Kind.IMAGE else targets.kernels
            pushed = push_results(settings, targets.store, lambda: [names.get(name)], Notes())
            print(describe_pushed(settings, pushed))
    except BangerError as error:
        return TaskFailed("\n".join(filter(None, (error.message, error.hint))))
    return None


class Notes(Silent):
    """doit tells of the steps itself."""

    def note(self, text):
        print(text, file=sys.stderr)
