"""What there is to say about a name. Pure: machines come through a callable, and nothing here knows a packet.

A machine's name is a name in `.vm` with one address, and so is every name below it: `api.web.vm` is `web.vm`, for
web servers that tell their sites apart by name. An address of the subnet leads back to its machine. `_gateway.vm` is
the host's own address on the bridge; no machine can be called that, so it is also the name by which to find out
whether a resolver comes to us at all.

Each zone has the records of a zone that is served locally, RFC 6303, section 3, with times of our own: a machine
appears and goes within a command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from ipaddress import AddressValueError, IPv4Address

from banger.network.names import REVERSE_DOMAIN, TOP_DOMAIN, plan_reverse_zones
from banger.network.subnet import DEFAULT_SUBNET, Subnet

# As a packet has it: labels, without the root's. RFC 1035, section 3.1.
Name = tuple[bytes, ...]
Lookup = Callable[[], Mapping[str, IPv4Address]]

GATEWAY_LABEL = "_gateway"


class RecordType(IntEnum):
    """RFC 1035, section 3.2.2."""

    A = 1
    NS = 2
    SOA = 6
    PTR = 12


@dataclass(frozen=True)
class Entry:
    """A name in a zone of ours. `records` holds an address for A, names for PTR and NS; for SOA the apex itself.

    A name that does not exist has no records; one that exists may have none either.
    """

    apex: Name
    exists: bool
    records: Mapping[RecordType, tuple[IPv4Address | Name, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Zone:
    """The names of a subnet's machines.

    `lookup` gives the machines' names, in lower case, with their addresses, as they are at this moment. It is called
    for each question, on the server's only thread: it answers from memory, or quickly.
    """

    lookup: Lookup
    subnet: Subnet = DEFAULT_SUBNET

    def find(self, name: Name) -> Entry | None:
        """What is known about a name, in any spelling; None outside of the zones.

        Raises what `lookup` raises.
        """
        # In ASCII only, as `bytes.lower` does it: RFC 4343.
        name = tuple(label.lower() for label in name)
        if name[-1:] == _TOP:
            return self._find_machine(name)
        apex = name[-self._reverse_size :]
        return self._find_address(name, apex) if apex in self._reverse_zones else None

    @cached_property
    def _reverse_zones(self) -> frozenset[Name]:
        return frozenset(_parse_name(zone) for zone in plan_reverse_zones(self.subnet.network))

    @cached_property
    def _reverse_size(self) -> int:
        """How many labels a reverse zone has: all of a network have the same number."""
        return len(next(iter(self._reverse_zones)))

    def _find_machine(self, name: Name) -> Entry:
        if name == _TOP:
            return _apex(_TOP)
        # What is not ASCII becomes what no machine is called.
        label = name[-2].decode("ascii", "replace")
        address = self.subnet.gateway if label == GATEWAY_LABEL else self.lookup().get(label)
        return Entry(_TOP, False) if address is None else Entry(_TOP, True, {RecordType.A: (address,)})

    def _find_address(self, name: Name, apex: Name) -> Entry:
        octets = [label.decode("ascii", "replace") for label in reversed(name[: -len(_REVERSE)])]
        own = _apex(apex) if name == apex else Entry(apex, False)
        if len(octets) < _OCTETS:
            # A name between the zone and its addresses exists for what is below it: RFC 8020, section 2.
            within = all(octet.isdecimal() and str(int(octet)) == octet and int(octet) < 256 for octet in octets)
            return own if own.exists else Entry(apex, within)
        names = self._names_of(".".join(octets))
        return Entry(apex, True, {**own.records, RecordType.PTR: names}) if names else own

    def _names_of(self, text: str) -> tuple[Name, ...]:
        try:
            address = IPv4Address(text)
        except AddressValueError:
            return ()
        if address == self.subnet.gateway:
            return ((GATEWAY_LABEL.encode("ascii"), *_TOP),)
        labels = sorted(label for label, each in self.lookup().items() if each == address)
        return tuple((label.encode("ascii"), *_TOP) for label in labels)


def _parse_name(text: str) -> Name:
    return tuple(text.encode("ascii").split(b"."))


def _apex(apex: Name) -> Entry:
    return Entry(apex, True, {RecordType.SOA: (apex,), RecordType.NS: (apex,)})


_TOP = _parse_name(TOP_DOMAIN)
_REVERSE = _parse_name(REVERSE_DOMAIN)
_OCTETS = 4
