"""The daemon's loop: what it does when, and what it answers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from banger import __version__
from banger.daemon.code import fingerprint
from banger.daemon.diary import Diary
from banger.daemon.place import Place
from banger.daemon.protocol import PROTOCOL_VERSION
from banger.daemon.service import Service, refuse_unknown
from banger.daemon.watch import Watch
from banger.dns.routing import ensure_routed, unroute
from banger.errors import BangerError
from banger.machine.console_log import rotate_log
from banger.machine.machines import Machines
from banger.settings import load_settings

if TYPE_CHECKING:
    from banger.dns.server import DnsServer

_LOOK_S = 0.5
_SAMPLE_S = 2.0
_RENEW_S = 5.0
_DNS_AGAIN_S = 5.0
# Each try may be one of sudo's, which the host's log tells: soon again, and ever more seldom.
_ROUTE_AGAIN_S, _ROUTE_SELDOM_S = 30.0, 3600.0
# The end is waited for by whoever asked for it.
_UNROUTE_S = 3.0
_MAX_LOG_BYTES, _KEPT_LOG_BYTES = 1 << 20, 1 << 18
_LEAST_STALE_S, _MOST_STALE_S = 1.0, 60.0


def is_link(name: str) -> bool:
    """Whether the host has an interface of this name: asked twice a second."""
    return os.path.exists(f"/sys/class/net/{name}")  # noqa: PTH110


class Daemon:
    """One run of it. `run` ends when it is asked to, and says whether it wants to begin again with newer code."""

    def __init__(self, machines: Machines, place: Place) -> None:
        self._machines = machines
        self._log = place.log
        self._diary = Diary()
        self._watch = Watch(machines, self._diary)
        self._service = Service(place.socket, self._answer)
        self._began = time.time()
        self._ending = asyncio.Event()
        self._again = False
        self._dns: DnsServer | None = None
        self._dns_trouble = ""
        self._is_routed = False
        self._route_not_before = 0.0
        self._route_pause_s = _ROUTE_AGAIN_S
        self._ssh_config_version: int | None = None
        # For what may take its time, one thing after the other; and for what guests may make take as long as they like.
        self._aside = concurrent.futures.ThreadPoolExecutor(1)
        self._slow = concurrent.futures.ThreadPoolExecutor(1)

    async def run(self) -> bool:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        await self._service.start()
        self._diary.note(f"bangerd {__version__} (pid {os.getpid()})")
        tasks = [asyncio.create_task(each) for each in self._duties()]
        ending = asyncio.create_task(self._ending.wait())
        try:
            done, _ = await asyncio.wait([*tasks, ending], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                # A duty never ends by itself: what it raised is a bug, and shall be seen as one.
                task.result()
        finally:
            for task in (*tasks, ending):
                task.cancel()
            if not self._again:
                await self._unroute()
            if self._dns is not None:
                await self._dns.close()
            await self._service.close()
            for executor in (self._aside, self._slow):
                # Not waited for: it may be killed at any moment anyway.
                executor.shutdown(wait=False, cancel_futures=True)
            self._diary.note("ended")
        return self._again

    def _duties(self) -> list[Any]:
        duties = [
            self._every(_LOOK_S, self._look),
            self._every(_SAMPLE_S, self._sample),
            self._every(_RENEW_S, self._renew()),
            self._serve_names(),
        ]
        after_s = self._machines.settings.auto_stop_stale_after_s
        if after_s is not None:
            pause_s = min(_MOST_STALE_S, max(_LEAST_STALE_S, after_s / 10))
            duties.append(self._every(pause_s, lambda: self._do(self._slow, self._watch.stop_stale, after_s)))
        return duties

    async def _every(self, pause_s: float, act: Callable[[], Any]) -> None:
        while True:
            try:
                await act()
            except (BangerError, OSError) as error:
                # A full disk, a busy database: it is tried again.
                self._diary.note(str(error))
            await asyncio.sleep(pause_s)

    async def _do(self, executor: concurrent.futures.Executor, act: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(executor, act, *arguments)

    async def _look(self) -> None:
        version = self._watch.look()
        for machine in self._watch.find_untidy():
            await self._do(self._aside, self._watch.tidy, machine)
        await self._route()
        if version != self._ssh_config_version:
            await self._do(self._aside, self._watch.write_ssh_config)
            self._ssh_config_version = version

    async def _route(self) -> None:
        """Tell the host's resolver, as soon as there is a bridge to tell it of, and until it was told."""
        if not is_link(self._machines.subnet.bridge) or self._dns is None:
            self._is_routed = False
            self._route_not_before = 0.0
            self._route_pause_s = _ROUTE_AGAIN_S
        elif not self._is_routed and self._route_not_before <= time.monotonic():
            try:
                await self._do(self._aside, self._tell_resolver)
            finally:
                # From its end: a resolver that answers slowly has its pause, too.
                self._route_not_before = time.monotonic() + self._route_pause_s
                self._route_pause_s = min(2 * self._route_pause_s, _ROUTE_SELDOM_S)

    def _tell_resolver(self) -> None:
        try:
            self._is_routed = ensure_routed(self._machines.subnet, self._machines.settings.dns_listen)
            if self._is_routed:
                self._diary.note("systemd-resolved asks here for .vm")
        except BangerError as error:
            self._diary.note(f"systemd-resolved does not ask here for .vm: {error.message}")

    async def _unroute(self) -> None:
        """Names are not left pointing at a port where nobody is. It is tried once, and not waited for without end."""
        try:
            # In that thread, where it comes after a word with the resolver that is under way.
            await asyncio.wait_for(self._do(self._aside, self._untell_resolver), _UNROUTE_S)
        except TimeoutError:
            if self._is_routed:
                self._diary.note("systemd-resolved still asks here for .vm: it could not be told in time")

    def _untell_resolver(self) -> None:
        if not self._is_routed:
            return
        try:
            unroute(self._machines.subnet, self._machines.settings.dns_listen)
            self._is_routed = False
            self._diary.note("systemd-resolved no longer asks here for .vm")
        except (BangerError, OSError, ImportError) as error:
            # Of one that ends because its code is gone, not everything can be loaded.
            self._diary.note(f"systemd-resolved still asks here for .vm: {error}")

    async def _sample(self) -> None:
        await self._do(self._aside, self._watch.sample)
        rotate_log(self._log, _MAX_LOG_BYTES, _KEPT_LOG_BYTES)

    def _renew(self) -> Callable[[], Any]:
        """Begin again when the code or the configuration is another, and has been the same for two looks."""
        first = fingerprint(self._machines.paths)
        seen = first

        async def look() -> None:
            nonlocal seen
            now = fingerprint(self._machines.paths)
            if now is None and seen is None:
                self._diary.note("the code is gone: nothing is left to do")
                self._ending.set()
            elif now is not None and now != first and now == seen:
                # What is wrong with a configuration is told, and the one from before counts on.
                load_settings(self._machines.paths)
                self._diary.note("the code or the configuration is another: beginning again")
                self._again = True
                self._ending.set()
            seen = now

        # A refusal leaves `seen` as it is: it is tried again at the next look.
        return look

    async def _serve_names(self) -> None:
        from banger.dns.server import start_server
        from banger.dns.zone import Zone

        zone = Zone(self._watch.addresses, self._machines.subnet)
        while True:
            try:
                self._dns = await start_server(self._machines.settings.dns_listen, zone)
                break
            except BangerError as error:
                self._dns_trouble = error.message
                self._diary.note(f"{error.message}; {error.hint}")
                await asyncio.sleep(_DNS_AGAIN_S)
        self._dns_trouble = ""
        await asyncio.Event().wait()

    async def _answer(self, do: str, arguments: Mapping[str, Any]) -> object:
        answers: Mapping[str, Callable[[], object]] = {
            "status": self._tell_status,
            "machines": self._tell_machines,
            "stats": lambda: [asdict(each) for each in self._watch.stats()],
            "stop": self._stop,
        }
        if do not in answers:
            raise refuse_unknown(do, answers)
        return answers[do]()

    def _stop(self) -> dict[str, object]:
        # It may be about to begin again.
        self._again = False
        self._ending.set()
        return {"pid": os.getpid()}

    def _tell_status(self) -> dict[str, object]:
        machines = self._watch.machines()
        address, port = self._machines.settings.dns_listen
        return {
            "protocol": PROTOCOL_VERSION,
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._began,
            "state": str(self._machines.paths.state),
            "machines": len(machines),
            "running": len(self._watch.addresses()),
            "dns": {
                "listen": f"{address}:{port}",
                "serves": self._dns is not None,
                "trouble": self._dns_trouble,
            },
        }

    def _tell_machines(self) -> list[dict[str, object]]:
        return [
            {"id": each.id, "name": each.name, "state": each.state, "address": str(each.address)}
            for each in self._watch.machines()
        ]


def run_daemon(machines: Machines, place: Place) -> bool:
    """Until it is asked to end; gives whether it wants to begin again. The caller holds the lock."""
    with contextlib.closing(machines.records):
        return asyncio.run(_run(machines, place))


async def _run(machines: Machines, place: Place) -> bool:
    return await Daemon(machines, place).run()
