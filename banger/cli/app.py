"""What the commands work with, each made when it is first needed."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import click

from banger.cli.output import say
from banger.errors import BangerError, Reason
from banger.machine.record import Records, State
from banger.paths import Paths
from banger.settings import (
    MAX_DISK_MIB,
    MAX_MEMORY_MIB,
    MAX_VCPUS,
    MIN_DISK_MIB,
    MIN_MEMORY_MIB,
    Settings,
    load_settings,
)
from banger.sizes import format_bytes, format_mib, parse_mib

if TYPE_CHECKING:
    from banger.machine.machines import Machines
    from banger.machine.sandbox import Order
    from cache import Store
    from pipelines.reporter import Reporter
    from pipelines.targets import Targets

MAX_TIMEOUT_S = 86400


class App:
    def __init__(self) -> None:
        context = click.get_current_context()
        self.quiet = bool((context.find_root().obj or {}).get("quiet"))

    @cached_property
    def paths(self) -> Paths:
        return Paths.from_environment()

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.paths)

    @cached_property
    def store(self) -> Store:
        """For building: nothing that it was told of goes away before the command ends; then the cache is tidied."""
        context = click.get_current_context()
        store = self.whole_store
        # The last that is registered is done first.
        context.find_root().call_on_close(self._tidy_cache)
        return context.find_root().with_resource(store.leased(context.command_path))

    @cached_property
    def whole_store(self) -> Store:
        """For looking at it and tidying it."""
        from cache import Store

        return Store.open(self.paths.store)

    def _tidy_cache(self) -> None:
        if isinstance(sys.exception(), KeyboardInterrupt):
            return  # who wants to stop does not want to wait
        from banger.garbage import collect_if_large

        collected = collect_if_large(self.whole_store, self.paths, self.settings.cache_max_size)
        if collected is not None and collected.dropped:
            self.say(
                f"the cache became too large: {format_bytes(collected.freed_bytes)} went that nobody used for the "
                "longest time"
            )

    @cached_property
    def records(self) -> Records:
        return Records(self.paths.database)

    @cached_property
    def machines(self) -> Machines:
        from banger.machine import lifecycle
        from banger.machine.machines import Machines

        machines = Machines(self.records, self.paths, self.settings, on_start=self._serve_names)
        lifecycle.remove_half_made(machines)
        if any(each.state is State.RUNNING for each in self.records.list()):
            # It may have been ended, or the host restarted.
            self._ensure_daemon()
        return machines

    def _serve_names(self) -> None:
        self._ensure_daemon()
        from banger.network.privileges import can_change_network

        if can_change_network() or not self.settings.daemon_autostart:
            # The daemon tells the host's resolver of itself.
            return
        # It has no terminal on which sudo could ask; we have just been let through.
        from banger.dns.routing import ensure_routed
        from banger.network import DEFAULT_SUBNET

        with contextlib.suppress(BangerError):
            ensure_routed(DEFAULT_SUBNET, self.settings.dns_listen)

    def _ensure_daemon(self) -> None:
        """See that names are served and dead machines tidied up. Nothing waits for it, and nothing fails without it."""
        if not self.settings.daemon_autostart:
            return
        from banger.daemon.client import ensure_started

        try:
            ensure_started(self.paths)
        except (BangerError, OSError) as error:
            self.say(f"bangerd cannot be started: {error}")

    def targets(self, reporter: Reporter, *, may_build: bool = True) -> Targets:
        from banger.targets import make_targets

        return make_targets(self.paths, self.settings, self.store, reporter, sys.stdin.buffer, may_build=may_build)

    def reporter(self, as_json: bool = False) -> Reporter:
        from banger.cli.progress import make_reporter

        return make_reporter(quiet=self.quiet, as_json=as_json)

    def say(self, text: str) -> None:
        if not self.quiet:
            say(text)

    def voices(self, as_json: bool) -> tuple[Reporter, Callable[[str], None]]:
        """Who is told of steps, and who of a line to read: with --json both become JSON lines."""
        reporter = self.reporter(as_json)
        return reporter, reporter.note if as_json and not self.quiet else self.say

    def order(
        self,
        name: str | None,
        image: str | None,
        kernel: str | None,
        vcpu: str | None,
        memory: str | None,
        disk_size: str | None,
        nat: bool,
        no_pull: bool,
        no_build: bool,
    ) -> Order:
        """The options of a new machine, checked and completed from the settings."""
        from banger.machine.name import parse_machine_name
        from banger.machine.sandbox import Order

        return Order(
            name=None if name is None else parse_machine_name(name),
            image=image or self.settings.default_image_name,
            kernel=kernel,
            vcpus=self.settings.vcpus if vcpu is None else parse_vcpus(vcpu),
            memory_mib=self.settings.memory_mib if memory is None else parse_memory(memory),
            disk_mib=self.settings.disk_mib if disk_size is None else parse_disk_size(disk_size),
            nat=nat,
            may_pull=not no_pull,
            may_build=not no_build,
        )


pass_app = click.make_pass_decorator(App, ensure=True)


def check_seconds(option: str, seconds: float | None) -> float | None:
    if seconds is not None and not (math.isfinite(seconds) and 0 < seconds <= MAX_TIMEOUT_S):
        raise BangerError(
            f"{option} must be a number of seconds, more than zero and at most {MAX_TIMEOUT_S}",
            reason=Reason.BAD_INPUT,
        )
    return seconds


def parse_vcpus(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_VCPUS:
        raise BangerError(f"--vcpu {text!r} is not a number from 1 to {MAX_VCPUS}", reason=Reason.BAD_INPUT)
    return int(text)


def parse_memory(text: str) -> int:
    """In MiB."""
    return _parse_size("--memory", text, MIN_MEMORY_MIB, MAX_MEMORY_MIB)


def parse_disk_size(text: str) -> int:
    """In MiB."""
    return _parse_size("--disk-size", text, MIN_DISK_MIB, MAX_DISK_MIB)


def _parse_size(option: str, text: str, least_mib: int, most_mib: int) -> int:
    try:
        size_mib = parse_mib(text)
    except BangerError as error:
        raise BangerError(f"{option}: {error.message}", reason=error.reason, hint=error.hint) from error
    if not least_mib <= size_mib <= most_mib:
        raise BangerError(
            f"{option} {text} is too {'small' if size_mib < least_mib else 'large'}",
            reason=Reason.BAD_INPUT,
            hint=f"from {format_mib(least_mib)} to {format_mib(most_mib)}",
        )
    return size_mib
