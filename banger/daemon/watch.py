"""The records and what they say of the world, looked at twice a second: which machines run, which have died.

What takes time, or may wait for somebody, is done in one thread beside the loop, one thing after the other. Nothing is
remembered that is not in the records: a daemon that is killed loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from banger.daemon.diary import Diary
from banger.errors import BangerError, Reason
from banger.machine import lifecycle
from banger.machine.console_log import rotate_log
from banger.machine.machines import Machines
from banger.machine.record import Machine, Records, State
from banger.machine.ssh_config import write_ssh_config
from banger.machine.stats import Sample, Stats, make_stats, take_sample
from banger.machine.usage import find_idle_s, hold_unused

# After what was refused (a sudo that wants a password, say), and for a guest that does not answer.
_AGAIN_S = 30.0
# How often the use of a machine is noted at most, unless it is stopped within minutes.
_NOTE_S = 60.0


class Watch:
    """`look` and the questions are for the loop's thread, `stop_stale` for one of its own, the rest for the third."""

    def __init__(self, machines: Machines, diary: Diary) -> None:
        self._machines = machines
        # A connection for each thread.
        self._elsewhere = replace(machines, records=Records(machines.paths.database))
        self._slow = replace(machines, records=Records(machines.paths.database))
        self._diary = diary
        self._version = -1
        self._known: list[Machine] = []
        self._samples: dict[str, tuple[Sample | None, Sample | None]] = {}
        self._not_before: dict[str, float] = {}

    def look(self) -> int:
        """Read the records if they have changed. Gives their version, by which each caller sees what is new to it."""
        version = self._machines.records.version()
        if version != self._version:
            self._known = self._machines.records.list()
            self._version = version
        return version

    def machines(self) -> list[Machine]:
        self.look()
        return self._known

    def addresses(self) -> Mapping[str, IPv4Address]:
        """Of the machines that run, by name."""
        return {each.name: each.address for each in self.machines() if each.state is State.RUNNING}

    def find_untidy(self) -> list[Machine]:
        """Those whose monitor has died, or whose creator, and that nobody has tidied up yet."""
        now = time.monotonic()
        return [
            each
            for each in self._known
            if self._not_before.get(each.id, 0.0) <= now
            and (each.is_half_made or (each.runtime and each.state is State.STOPPED))
        ]

    def tidy(self, machine: Machine) -> None:
        try:
            if machine.is_half_made:
                lifecycle.delete(self._elsewhere, machine, only_if=lambda found: found.is_half_made)
                self._diary.note(f"{machine.name}: its creator died; what it had made is removed")
            elif lifecycle.reclaim(self._elsewhere, machine):
                self._diary.note(f"{machine.name}: its monitor has ended; what it held is given back")
        except (BangerError, OSError) as error:
            self._put_off(machine, error)

    def write_ssh_config(self) -> None:
        write_ssh_config(self._elsewhere)

    def sample(self) -> None:
        """Count what each machine has used up to now, and keep its console log within bounds."""
        samples = {}
        for each in self._known:
            if each.state is State.RUNNING:
                samples[each.id] = (self._samples.get(each.id, (None, None))[1], take_sample(self._machines, each))
                rotate_log(self._machines.log(each))
        self._samples = samples

    def stats(self) -> list[Stats]:
        return [make_stats(self._machines, each, *self._samples.get(each.id, (None, None))) for each in self.machines()]

    def stop_stale(self, after_s: int) -> None:
        """Stop what runs and was not used for so long. A guest may take its time over each question."""
        slow = self._slow
        # Asked long before that too: a connection that ends in between has to have been seen.
        known_for_s = min(_NOTE_S, after_s / 10)
        for machine in slow.records.list():
            if machine.state is not State.RUNNING or self._not_before.get(machine.id, 0.0) > time.monotonic():
                continue
            if time.time() - machine.used_at < known_for_s:
                continue
            try:
                # No session waits for this question: the lock comes only when it matters.
                if find_idle_s(slow, machine, time.time()) < after_s:
                    continue
                with hold_unused(slow, machine) as is_unused:
                    idle_s = find_idle_s(slow, machine, time.time()) if is_unused else 0.0
                    if idle_s >= after_s:
                        self._diary.note(f"{machine.name}: not used for {idle_s:.0f} s: it is stopped")
                        lifecycle.stop(slow, machine)
            except (BangerError, OSError) as error:
                self._put_off(machine, error)

    def _put_off(self, machine: Machine, error: BangerError | OSError) -> None:
        if not isinstance(error, BangerError) or error.reason is not Reason.NOT_FOUND:
            self._diary.note(f"{machine.name}: {error}")
        self._not_before[machine.id] = time.monotonic() + _AGAIN_S
