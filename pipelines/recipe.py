"""A recipe of a user's own: `recipe.toml`, read strictly (docs/recipes.md).

Nothing is asked, built or looked up here. Every refusal names the file and the key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from blake3 import blake3

from banger.errors import BangerError, Reason
from banger.run import printable
from catalog.names import nearest, parse_name
from pipelines.oci.sources import STDIN

FILE_NAME = "recipe.toml"
_MAX_BYTES = 1 << 20
# Of one argument of a program: MAX_ARG_STRLEN, execve(2).
_MAX_COMMAND_BYTES = 100_000
# Debian Policy, 5.6.1 and 5.6.7; a suite is a folder of the archive.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_SUITE = re.compile(r"[a-z][a-z0-9.-]*")
_MODE = re.compile(r"0?[0-7]{3,4}")


@dataclass(frozen=True)
class RecipeFile:
    """`source` is relative to the recipe's folder, `target` to the image's root; `mode` None is that of the source."""

    source: str
    target: str
    mode: int | None = None


@dataclass(frozen=True)
class RunStep:
    """A command for `sh -ec`."""

    command: str
    network: bool = True


@dataclass(frozen=True)
class OwnRecipe:
    """`base` is the name or reference of an image; without one there is a `suite`, of which `packages` come.

    `digest` is the BLAKE3 of the text that it was read from.
    """

    path: Path
    name: str
    digest: str
    summary: str = ""
    base: str | None = None
    suite: str | None = None
    packages: tuple[str, ...] = ()
    kernel: str | None = None
    files: tuple[RecipeFile, ...] = ()
    runs: tuple[RunStep, ...] = ()

    @property
    def folder(self) -> Path:
        return self.path.parent


def read_recipe(path: Path, name: str | None = None) -> OwnRecipe:
    """The recipe in a folder, or in a file. `name` is the user's choice instead of the recipe's."""
    place = path / FILE_NAME if path.is_dir() else path
    try:
        with place.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise BangerError(f"there is no recipe {printable(str(place))}", reason=Reason.NOT_FOUND) from error
    except OSError as error:
        raise BangerError(f"cannot read {printable(str(place))}: {error.strerror}", reason=Reason.IO) from error
    if len(raw) > _MAX_BYTES:
        raise BangerError(f"{printable(str(place))} is too large for a recipe", reason=Reason.BAD_INPUT)
    return parse_recipe(raw, place.absolute(), name)


def parse_recipe(raw: bytes, path: Path, name: str | None = None) -> OwnRecipe:
    """`path` is where it was read from. Raises BAD_INPUT."""
    try:
        values = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BangerError(
            f"{printable(str(path))} is no valid TOML: {printable(str(error))}", reason=Reason.BAD_INPUT
        ) from error
    top = _Table(
        printable(str(path)), values, ("name", "summary", "base", "suite", "packages", "kernel", "file", "run")
    )
    base, suite, kernel = top.text("base"), top.text("suite"), top.text("kernel")
    packages = top.texts("packages")
    if (base is None) == (suite is None):
        top.refuse('needs one of the two: base = "…", or suite = "…" with packages')
    if base == STDIN:
        top.refuse("base cannot come from standard input")
    if suite is None and "packages" in values:
        top.refuse("packages go with a suite, not with a base", 'install them in a step: [[run]] command = "…"')
    if suite is not None and not _SUITE.fullmatch(suite):
        top.refuse(f"suite {suite!r} is no name of a suite")
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            top.refuse(f"packages: {printable(package)!r} is no name of a package")
    if kernel is not None:
        parse_name(kernel, "a kernel")
    return OwnRecipe(
        path=path,
        name=_find_name(name, top.text("name"), path),
        digest=blake3(raw).hexdigest(),
        summary=top.text("summary") or "",
        base=base,
        suite=suite,
        packages=packages,
        kernel=kernel,
        files=tuple(_parse_file(table) for table in top.tables("file", ("source", "target", "mode"))),
        runs=tuple(_parse_run(table) for table in top.tables("run", ("command", "network"))),
    )


class _Table:
    """A table of the file, and what to call it in messages. Absent keys give None, or nothing."""

    def __init__(self, what: str, values: Mapping[str, object], known: tuple[str, ...]) -> None:
        self._what = what
        self._values = values
        for key in values:
            if key not in known:
                self.refuse(f"has no key {printable(key)!r}", nearest(key, known))

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            self.refuse(f"{key} must be text")
        return value

    def required(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            self.refuse(f"needs {key}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self.refuse(f"{key} must be a list of texts")
        return tuple(values)

    def flag(self, key: str, default: bool) -> bool:
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            self.refuse(f"{key} must be true or false")
        return value

    def tables(self, key: str, known: tuple[str, ...]) -> Iterator[_Table]:
        values = self._values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            self.refuse(f"{key} must be tables: [[{key}]]")
        for number, value in enumerate(values, 1):
            yield _Table(f"{self._what}, [[{key}]] number {number},", value, known)

    def refuse(self, why: str, hint: str = "") -> NoReturn:
        raise BangerError(f"{self._what} {why}", reason=Reason.BAD_INPUT, hint=hint)


def _find_name(given: str | None, said: str | None, path: Path) -> str:
    if given or said:
        return parse_name(given or said or "", "an image")
    name = path.parent.name if path.name == FILE_NAME else path.stem
    try:
        return parse_name(name, "an image")
    except BangerError as error:
        raise BangerError(error.message, reason=error.reason, hint="name it: --name NAME") from error


def _parse_file(table: _Table) -> RecipeFile:
    source, target, mode = table.required("source"), table.required("target"), table.text("mode")
    if source.startswith("/") or ".." in source.split("/"):
        table.refuse(f"source {printable(source)!r} must be below the recipe's folder")
    parts = target.split("/")[1:]
    if not target.startswith("/") or any(part in ("", ".", "..") for part in parts):
        table.refuse(
            f"target {printable(target)!r} must be the whole path of what it becomes in the image",
            'such as "/etc/motd", without a slash at the end',
        )
    if any(part.startswith(".wh.") for part in parts):
        table.refuse(f"target {printable(target)!r}: names that begin with '.wh.' mean something else in layers")
    if mode is not None and not _MODE.fullmatch(mode):
        table.refuse(f"mode {printable(mode)!r} must be octal", 'such as "0644"')
    return RecipeFile(source, "/".join(parts), None if mode is None else int(mode, 8))


def _parse_run(table: _Table) -> RunStep:
    command = table.required("command")
    if len(command.encode()) > _MAX_COMMAND_BYTES:
        table.refuse("is too long for one command", "put it into a file of its own, and run that")
    return RunStep(command, table.flag("network", True))
