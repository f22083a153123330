"""Layers laid over each other: one tree from the entries of all, by the rules of image-spec, layer.md.

Only metadata is looked at. The result says of each file which layer holds its content, and where in it. Paths are
only ever followed inside the tree: a link in the middle of one leads where it would lead inside the image, and one
that climbs above the root is refused, for entries, whiteouts and hard links alike.

What the spec leaves open is as the tools do it that unpack layer after layer onto a disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from banger.errors import BangerError, Reason
from banger.run import is_cancelled
from pipelines.oci.limits import Limits
from pipelines.oci.tar import Entry, Kind

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
# aufs keeps books of its own under such names; they never were part of an image.
_AUFS = ".wh..wh."
# What overlayfs, under which the image lies in a machine, takes for notes of its own ("whiteouts and opaque
# directories", "metadata only copy up"): it would hide files or make them unreadable, and is left out.
_OVERLAY_XATTR = "trusted.overlay."
_OVERLAY_WHITEOUT = (0, 0)
_MAX_LINKS = 40
_MAX_COMPONENT_BYTES = 255
_MAX_PATH_BYTES = 4095


@dataclass(eq=False, slots=True)
class Node:
    """What a path stands for: an inode. Several names of one file share one node. `layer` counts from 0, below."""

    entry: Entry
    layer: int
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        return self.entry.kind is Kind.FOLDER


def merge(layers: Iterable[Iterable[Entry]], limits: Limits) -> Node:
    """The root of the tree that the layers give, from the lowest to the topmost."""
    tree = Tree(limits)
    for number, entries in enumerate(layers):
        tree.apply(number, entries)
    return tree.root


def find_folder(root: Node, path: str) -> Node | None:
    """The folder that a path leads to, links followed inside the tree; None where one leads out of it."""
    tree = Tree(Limits())
    tree.root = root
    try:
        found = tree.find_parent([*split_path(path), ""])
    except BangerError:
        return None
    return None if found is None else found.folder


@dataclass(frozen=True, slots=True)
class Way:
    """How a folder was reached: `nodes` from the root down to it, and the names that lead from one to the next."""

    nodes: list[Node]
    names: list[str]

    @property
    def folder(self) -> Node:
        return self.nodes[-1]


class Tree:
    """The layers so far. `root` has no entry until one comes: then it belongs to root, mode 0755."""

    def __init__(self, limits: Limits) -> None:
        self.root = Node(Entry("", Kind.FOLDER), 0)
        # Names (of a folder) that the layer being applied has made, or made something below: whiteouts of its own do
        # not reach them.
        self._fresh: set[tuple[Node, str]] = set()
        self._layer = 0
        # Folders of this layer from which all that is below it has been taken: what comes into them later is its own.
        self._swept: set[Node] = set()
        self._limits = limits
        self._implied = 0
        self._steps = 0

    def apply(self, layer: int, entries: Iterable[Entry]) -> None:
        """layer.md, "Applying Changesets"."""
        self._layer = layer
        self._fresh = set()
        self._swept = set()
        for entry in entries:
            if is_cancelled():
                raise KeyboardInterrupt
            path = split_path(entry.path)
            if not path:
                self._change_root(entry)
            elif path[-1].startswith(_WHITEOUT) or any(part.startswith(_AUFS) for part in path):
                self._white_out(path)
            else:
                self._add(path, entry)

    def _change_root(self, entry: Entry) -> None:
        if entry.kind is not Kind.FOLDER:
            raise _bad("the layer's root is not a folder")
        self.root.entry = entry

    def _add(self, path: list[str], entry: Entry) -> None:
        """layer.md, "Additions and Modifications": what was there goes, but for the content of a folder."""
        if entry.kind is Kind.SYMLINK:
            entry = _make_symlink(entry)
        if any(key.startswith(_OVERLAY_XATTR) for key in entry.xattrs):
            entry = replace(
                entry, xattrs={key: value for key, value in entry.xattrs.items() if not key.startswith(_OVERLAY_XATTR)}
            )
        way = self._make_parent(path)
        parent, name = way.folder, path[-1]
        if entry.kind is Kind.LINK:
            node = self._get_link_target(entry, parent, name)
        elif entry.kind is Kind.CHAR and entry.device == _OVERLAY_WHITEOUT:
            parent.children.pop(name, None)
            self._mark(way, name)
            return
        else:
            node = Node(entry, self._layer)
            before = parent.children.get(name)
            if before is not None and before.is_folder and node.is_folder:
                # It is the same folder with other attributes: a new node would not be what `_fresh` knows.
                node, before.entry, before.layer = before, entry, self._layer
        parent.children[name] = node
        self._mark(way, name)

    def _get_link_target(self, entry: Entry, parent: Node, name: str) -> Node:
        """A hard link is one more name of what its target stands for now. Links are not followed in the last part."""
        target = split_path(entry.target.lstrip("/"))
        found = self.find_parent(target) if target else None
        node = found.folder.children.get(target[-1]) if found is not None else None
        if node is None or (found is not None and found.folder is parent and target[-1] == name):
            raise _bad(f"the hard link {_short(entry.path)} leads to {_short(entry.target)}, which is not there")
        if node.is_folder:
            raise _bad(f"the hard link {_short(entry.path)} leads to a folder")
        return node

    def _white_out(self, path: list[str]) -> None:
        """layer.md, "Whiteouts" and "Opaque Whiteout": they hide what is below their layer, never what is in it."""
        name = path[-1]
        if name != _OPAQUE and any(part.startswith(_AUFS) for part in path):
            return
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise _bad(f"the whiteout {_short('/'.join(path))} is of no file")
        found = self.find_parent(path)
        if found is None:
            return
        if name == _OPAQUE:
            self._sweep(found.folder)
        elif hidden in found.folder.children:
            self._hide(found.folder, hidden)

    def _hide(self, parent: Node, name: str) -> None:
        if (parent, name) in self._fresh:
            self._sweep(parent.children[name])
        else:
            del parent.children[name]

    def _sweep(self, folder: Node) -> None:
        todo = [folder]
        while todo:
            node = todo.pop()
            if node in self._swept:
                continue
            self._swept.add(node)
            for name in list(node.children):
                if (node, name) in self._fresh:
                    todo.append(node.children[name])
                else:
                    del node.children[name]

    def _mark(self, way: Way, name: str) -> None:
        for node, child in zip(reversed(way.nodes), (name, *reversed(way.names)), strict=True):
            if (node, child) in self._fresh:
                return
            self._fresh.add((node, child))

    def find_parent(self, path: list[str]) -> Way | None:
        """The folder that holds the last part of a path; None when there is none."""
        return self._walk(path, make=False)

    def _make_parent(self, path: list[str]) -> Way:
        """Folders that no entry speaks of are made (mode 0755, root's, from 1970)."""
        found = self._walk(path, make=True)
        assert found is not None
        return found

    def _walk(self, path: list[str], *, make: bool) -> Way | None:
        """To the folder of the last part of a path; None when it is not there."""
        todo = path[-2::-1]
        way = Way([self.root], [])
        # Below what is not there; `..` leads back from it by the name alone.
        missing: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            self._steps += 1
            if part in ("", "."):
                continue
            if part == "..":
                if missing:
                    missing.pop()
                    continue
                if not way.names:
                    raise _bad(f"{_short('/'.join(path))} leads above the root of the image")
                way.nodes.pop()
                way.names.pop()
                continue
            node = None if missing else way.folder.children.get(part)
            if node is None:
                missing.append(part)
            elif node.entry.kind is Kind.SYMLINK:
                links += 1
                if links > _MAX_LINKS:
                    raise _bad(f"{_short('/'.join(path))} goes through too many links")
                if node.entry.target.startswith("/"):
                    way = Way([self.root], [])
                todo += node.entry.target.split("/")[::-1]
            elif node.is_folder:
                way.nodes.append(node)
                way.names.append(part)
            elif make:
                raise _bad(f"{_short('/'.join(path))} lies below a file")
            else:
                return None
        self._limits.check_steps(self._steps)
        if make:
            if links:
                # What is short as it is written may be long where it is.
                split_path("/".join((*way.names, *missing, path[-1])))
            for part in missing:
                self._imply(way, part)
        return None if missing and not make else way

    def _imply(self, way: Way, name: str) -> None:
        self._implied += 1
        self._limits.check_entries(self._implied, "the image")
        node = Node(Entry(name, Kind.FOLDER), self._layer)
        way.folder.children[name] = node
        way.nodes.append(node)
        way.names.append(name)


def split_path(path: str) -> list[str]:
    """The parts of an entry's name; none for the root, which kaniko calls `/`.

    Refuses what would lead out of the image, or into no image.
    """
    if path.startswith("/") and path.strip("/"):
        raise _bad(f"the name {_short(path)} is absolute")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _bad(f"the name {_short(path)} leads upwards")
    if "\0" in path:
        raise _bad(f"the name {_short(path)} holds a NUL")
    if len(path.encode("utf-8", "surrogateescape")) > _MAX_PATH_BYTES or any(
        len(part.encode("utf-8", "surrogateescape")) > _MAX_COMPONENT_BYTES for part in parts
    ):
        raise _bad(f"the name {_short(path)} is too long for a Linux filesystem")
    return parts


def _make_symlink(entry: Entry) -> Entry:
    """As symlink(2) does: ENOENT for a target that is empty, ENAMETOOLONG past PATH_MAX, and always the same mode."""
    if not entry.target:
        raise _bad(f"the symlink {_short(entry.path)} leads nowhere")
    if len(entry.target.encode("utf-8", "surrogateescape")) > _MAX_PATH_BYTES:
        raise _bad(f"the symlink {_short(entry.path)} leads to a name that is too long for a Linux filesystem")
    return replace(entry, mode=0o777)


def list_nodes(root: Node) -> Iterator[tuple[str, Node]]:
    """Every path but the root's, folders before their content, sorted by name."""
    todo = [("", name, child) for name, child in sorted(root.children.items())[::-1]]
    while todo:
        folder, name, node = todo.pop()
        path = folder + name
        yield path, node
        if node.children:
            inside = path + "/"
            todo += [(inside, name, child) for name, child in sorted(node.children.items())[::-1]]


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")


def _bad(what: str) -> BangerError:
    return BangerError(what, reason=Reason.BAD_INPUT, hint="the image is damaged, or not meant well")
