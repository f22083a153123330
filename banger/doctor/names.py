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
from banger.network import resolved
from banger.settings import config_path
from banger.settings.table import DNS_LISTEN


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
        return failed(
            served["trouble"] or f"nothing is served at {served['listen']}",
            _tell_where_to_set(subject),
        )
    for protocol in ("udp", "tcp"):
        holder = find_holder(protocol, (address, port))
        if holder is not None:
            return failed(
                f"{protocol.upper()} port {port} is held by {holder}: names cannot be served",
                _tell_where_to_set(subject),
            )
    return passed(f"to be served at {address}:{port}, which is free")


def check_routing(subject: Subject) -> Finding:
    if find_status(subject.paths) is None:
        # Nothing answers for .vm, and systemd-resolved was told so.
        return passed("to be seen once bangerd runs")
    routing = find_routing(subject.subnet, subject.settings.dns_listen)
    if routing.is_wired:
        return passed(
            "by systemd-resolved" if routing.kind is RoutingKind.RESOLVED else "the host's resolver finds names in .vm"
        )
    if routing.kind is RoutingKind.NONE and resolved.is_running():
        # As Debian's package of it does.
        fix = "sudo ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; or see docs/dns-routing.md"
    else:
        fix = "docs/dns-routing.md"
    return warned(f"names in .vm are not found: {routing.hint}", fix)


def check_ssh_config(_subject: Subject) -> Finding:
    match find_inclusion(user_config_path()):
        case Inclusion.YES:
            return passed("ssh NAME.vm works: ~/.ssh/config includes banger's")
        case Inclusion.NO:
            return passed("banger vm ssh NAME works; for ssh NAME.vm: banger ssh-config --install")
        case Inclusion.DAMAGED:
            return warned("banger's lines in ~/.ssh/config are damaged", "banger ssh-config --install says which")


def _tell_where_to_set(subject: Subject) -> str:
    """No command of banger's changes a setting. bangerd itself sees that the file has changed."""
    given_by = subject.configuration.effective[DNS_LISTEN.key].given_by
    return f"set dns.listen to a free port in {given_by or config_path(subject.paths)}"


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
