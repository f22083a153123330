"""A store with an image in it that is built from small steps, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from banger.run import resume
from cache import JSON, Digest, Record, Store
from catalog.local import Names
from pipelines.graph import build
from pipelines.job import Job
from pipelines.naming import Target, plan_named
from pipelines.read_only import ReadOnlyStore
from pipelines.recorded import Found, RecordedTargets
from pipelines.reporter import Silent
from pipelines.step import Effect, Step, walk
from pipelines.why import Explanation, explain

DETAILS = {"kernel": "debian-6.12", "source": "test"}


@dataclass
class House:
    """A store and names; builds count what runs, and `why` looks."""

    root: Path
    runs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        resume()
        self.store = Store.open(self.root / "store")
        self.images, self.kernels = Names(self.root / "images", "image"), Names(self.root / "kernels", "kernel")

    def make(self, job: Job) -> None:
        self.runs.append(job.step.name)
        inputs = [job.input(name).read_text() for name in sorted(job.step.inputs)]
        for output in job.step.outputs:
            with job.create(output) as sink:
                sink.write(repr((job.step.kind, output, sorted(job.parameters.items()), inputs)).encode())

    def plan(self, *, suite: str = "one", packages: tuple[str, ...] = ("a", "b", "c"), version: int = 1) -> Target:
        """lock ─ system ─┬─ rootfs ─ image:mine; home has an input of its own."""
        parameters: Mapping[str, JSON] = {"suite": suite, "packages": packages, "selection": "all"}
        lock = Step("lock:mine", "lock", 1, self.make, ("lock",), parameters)
        system = Step("system:mine", "system", version, self.make, ("system",), {}, {"lock": lock.output("lock")})
        rootfs = Step("rootfs:mine", "rootfs", 1, self.make, ("rootfs",), {}, {"system": system.output("system")})
        home = Step("home:mine", "home", 1, self.make, ("home", "extra"), {}, {"system": system.output("system")})
        artifacts = {"rootfs": rootfs.output("rootfs"), "home": home.output("home")}
        return plan_named(self.store, self.images, "mine", artifacts, DETAILS)

    def build(self, *nodes: Step | Effect) -> list[str]:
        self.runs.clear()
        build(self.store, nodes, Silent())
        return list(self.runs)

    def targets(self) -> RecordedTargets:
        return RecordedTargets(ReadOnlyStore.open(self.store.root), self.images, self.kernels)

    def why(self, target: Target, root: str | None = None) -> dict[str, Explanation]:
        nodes = {node.name: node for node in walk_target(target)}
        found = Found(target.naming if root is None else nodes[root], [target])
        return {each.name: each for each in explain(self.targets(), found)}

    def find(self, text: str) -> dict[str, Explanation]:
        targets = self.targets()
        return {each.name: each for found in targets.find(text) for each in explain(targets, found)}

    def record(self, target: Target, name: str) -> tuple[Digest, Record]:
        key = self.why(target)[name].key
        assert key is not None
        record = self.store.find_record(key)
        assert record is not None
        return key, record

    def forget(self, target: Target, name: str) -> None:
        """What gc does with an intermediate thing: its bytes go, its record stays."""
        for made in self.record(target, name)[1].outputs.values():
            self.store.path(made).unlink()

    def listing(self) -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in self.root.rglob("*")}


def walk_target(target: Target) -> list[Step | Effect]:
    return list(walk([target.naming]))


def states(found: Mapping[str, Explanation]) -> dict[str, str]:
    return {name: str(each.state) for name, each in found.items()}
