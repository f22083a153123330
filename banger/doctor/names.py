"""Names of machines on the host: the daemon that serves them, who asks it, and ssh."""

from __future__ import annotations

from collections.abc import Mapping

from banger.daemon.client import find_status
from banger.dns.holder import find_holder
from banger.dns.routing import RoutingKind, find_routing
from banger.doctor.finding import Check, Finding, Subject, failed, passed, warned
from banger.errors import BangerError
from banger.machine.glance import glance
from banger.machine.record import State
from banger.machine.ssh_config import Inclusion, find_inclusion, user_config_path
from banger.network.link import list_names


def check_daemon(subject: Subject) -> Finding:
    status = find_status(subject.paths)
    if status is not None:
        return passed(f"bangerd {status['version']} runs (process {status['pid']})")
    if _count_running(subject):
        return warned("bangerd does not run: names of machines are not served", "banger daemon start")
    if not subject.settings.daemon_autostart:
        return passed("bangerd does not run, and does not start by itself (daemon.autostart)")
    return passed("bangerd does not run; it starts with the next machine")


def check_dns(subject: Subject) -> Finding:
    address, port = subject.settings.dns_listen
    status = find_status(subject.paths)
    if status is not None:
        served = status["dns"]
        if served["serves"]:
            return passed(f"served at {served['listen']}")
        return failed(served["trouble"] or f"nothing is served at {served['listen']}", "set dns.listen to a free port")
    for protocol in ("udp", "tcp"):
        holder = find_holder(protocol, port)
        if holder is not None:
            return failed(
                f"{protocol.upper()} port {port} is held by {holder}: names cannot be served",
                "set dns.listen to a free port",
            )
    return passed(f"to be served at {address}:{port}, which is free")


def check_routing(subject: Subject) -> Finding:
    if find_status(subject.paths) is None and subject.subnet.bridge not in list_names():
        return passed("to be seen once a machine runs")
    routing = find_routing(subject.subnet, subject.settings.dns_listen)
    if routing.is_wired:
        return passed(
            "by systemd-resolved" if routing.kind is RoutingKind.RESOLVED else "the host's resolver finds names in .vm"
        )
    return warned(f"names in .vm are not found: {routing.hint}", "docs/dns-routing.md")


def check_ssh_config(_subject: Subject) -> Finding:
    match find_inclusion(user_config_path()):
        case Inclusion.YES:
            return passed("ssh NAME.vm works: ~/.ssh/config includes banger's")
        case Inclusion.NO:
            return passed("banger vm ssh NAME works; for ssh NAME.vm: banger ssh-config --install")
        case Inclusion.DAMAGED:
            return warned("banger's lines in ~/.ssh/config are damaged", "banger ssh-config --install says which")


def _count_running(subject: Subject) -> int:
    try:
        return sum(machine.state is State.RUNNING for machine in glance(subject.paths.database))
    except BangerError:
        # That has a row of its own.
        return 0


CHECKS: Mapping[str, Check] = {
    "daemon": check_daemon,
    "dns": check_dns,
    "dns routing": check_routing,
    "ssh config": check_ssh_config,
}
