"""What there is by name: here, in the catalogs, among the recipes; and which of those that share a name is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from catalog.bundle import Kind
from catalog.catalog import Entry
from catalog.kernels import list_kernel_recipes
from catalog.local import Named, Names
from catalog.recipes import find_recipe, list_recipe_names
from pipelines.catalogs import Catalogs
from pipelines.reporter import Reporter

HERE = "here"
RECIPE = "recipe"


@dataclass(frozen=True)
class Available:
    """One thing under a name. `origin` is a catalog's reference, RECIPE, or HERE for what came in another way.

    `size_bytes` is what it takes here, or else what its download takes; None where only a build can tell. `shadowed_by`
    is the origin of what the name stands for instead; None for what it stands for.
    """

    name: str
    origin: str
    version: str = ""
    size_bytes: int | None = None
    is_local: bool = False
    shadowed_by: str | None = None
    summary: str = ""
    kernel: str = ""
    digest: str = ""


def list_available(kind: Kind, names: Names, catalogs: Catalogs | None, reporter: Reporter) -> list[Available]:
    """Sorted by name, those of one name in the order in which they are looked for.

    Says which catalogs could not be reached; raises UNTRUSTED and the like for one that is not to be trusted.
    """
    found: dict[str, list[Available]] = {}
    for each in (*_offered(kind, catalogs, reporter), *_embedded(kind)):
        found.setdefault(each.name, []).append(each)
    local = {each.name: each for each in names.list()}
    return [each for name in sorted({*found, *local}) for each in _rank(found.get(name, []), local.get(name))]


def _offered(kind: Kind, catalogs: Catalogs | None, reporter: Reporter) -> Iterator[Available]:
    for source in catalogs.sources if catalogs is not None else ():
        assert catalogs is not None
        shelf = catalogs.ask(source)
        if shelf.failure is not None:
            last = f"as of {shelf.catalog.updated_at}" if shelf.catalog else "nothing of it is known"
            reporter.note(f"the catalog {source.ref} cannot be reached ({shelf.failure.message}): {last}")
        for entry in shelf.catalog.entries.get(kind, ()) if shelf.catalog else ():
            yield _of_entry(entry, source.ref)


def _of_entry(entry: Entry, reference: str) -> Available:
    return Available(
        name=entry.name,
        origin=reference,
        version=entry.version,
        size_bytes=entry.size_bytes,
        summary=entry.summary,
        kernel=entry.kernel,
        digest=entry.digest,
    )


def _embedded(kind: Kind) -> Iterator[Available]:
    if kind is Kind.KERNEL:
        yield from (Available(recipe.name, RECIPE, version=recipe.suite) for recipe in list_kernel_recipes())
        return
    for name in list_recipe_names():
        recipe = find_recipe(name)
        assert recipe is not None
        yield Available(name, RECIPE, version=recipe.suite, summary=recipe.summary, kernel=recipe.kernel)


def _rank(found: Iterable[Available], local: Named | None) -> list[Available]:
    """What is here is taken; else the first."""
    ranked = list(found)
    if local is None:
        return [ranked[0], *(replace(each, shadowed_by=ranked[0].origin) for each in ranked[1:])]
    is_it = [_is_same(each, local.details) for each in ranked]
    marked = [
        replace(each, is_local=True, size_bytes=local.size_bytes) if same else replace(each, shadowed_by=HERE)
        for each, same in zip(ranked, is_it, strict=True)
    ]
    return marked if any(is_it) else [_of_local(local), *marked]


def _is_same(each: Available, details: Mapping[str, object]) -> bool:
    """Whether what is here came from there, and would be the same today, as far as that can be told unbuilt."""
    if each.origin == RECIPE:
        # A kernel says which suite and package it is of.
        return details.get("source") == RECIPE or str(details.get("source", "")).startswith(f"{each.version}/")
    return (details.get("reference"), details.get("digest")) == (each.origin, each.digest)


def _of_local(local: Named) -> Available:
    details = {name: str(value) for name, value in local.details.items()}
    return Available(
        name=local.name,
        origin=HERE,
        version=details.get("version", ""),
        size_bytes=local.size_bytes,
        is_local=True,
        summary=details.get("summary", ""),
        kernel=details.get("kernel", ""),
        digest=details.get("digest", ""),
    )
