"""Any graph: keys do not depend on the order in which it is described, and a second build runs nothing."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from cache import Store
from pipelines.graph import Graph, build
from pipelines.job import Job
from pipelines.reporter import Silent
from pipelines.step import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

# For each step the numbers of earlier ones that it needs.
_GRAPHS = st.integers(1, 7).flatmap(
    lambda count: st.tuples(st.just(set()), *(st.sets(st.integers(0, number)) for number in range(count - 1)))
)


class _Bench:
    def __init__(self, needs: Sequence[set[int]]) -> None:
        self.needs = needs
        self.runs: list[str] = []

    def plan(self, rng: random.Random, changed: int | None = None) -> list[Step]:
        """The same graph, its inputs in any order; `changed` is the number of a step of another version."""
        steps: list[Step] = []
        for number, needed in enumerate(self.needs):
            order = rng.sample(sorted(needed), len(needed))
            steps.append(
                Step(
                    name=f"step-{number}",
                    kind=f"step-{number}",
                    version=2 if number == changed else 1,
                    build=self._make,
                    outputs=("out",),
                    parameters={str(each): each for each in order},
                    inputs={f"in-{each}": steps[each].output("out") for each in order},
                )
            )
        return steps

    def dependents(self, changed: int) -> set[int]:
        found = {changed}
        for number, needed in enumerate(self.needs):
            if needed & found:
                found.add(number)
        return found

    def _make(self, job: Job) -> None:
        self.runs.append(job.step.name)
        parts = [f"{job.step.name} {job.step.version}"]
        parts += [job.input(name).read_text() for name in sorted(job.step.inputs)]
        with job.create("out") as sink:
            sink.write("\n".join(parts).encode())


@settings(max_examples=15)
@given(_GRAPHS, st.randoms(use_true_random=False), st.data())
def test_any_graph_is_built_once_and_again_exactly_where_it_changed(
    needs: tuple[set[int], ...], rng: random.Random, data: st.DataObject
) -> None:
    bench = _Bench(needs)
    changed = data.draw(st.integers(0, len(needs) - 1))
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store")
        first, second = bench.plan(rng), bench.plan(rng)
        build(store, rng.sample(first, len(first)), Silent())
        assert sorted(bench.runs) == sorted(step.name for step in first)

        one, other = Graph(store, first, Silent()), Graph(store, rng.sample(second, len(second)), Silent())
        assert [one.key(step) for step in first] == [other.key(step) for step in second]

        bench.runs.clear()
        build(store, second, Silent())
        assert bench.runs == []

        build(store, bench.plan(rng, changed), Silent())
        assert sorted(bench.runs) == sorted(f"step-{number}" for number in bench.dependents(changed))
