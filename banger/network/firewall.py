"""What guests may reach, as nftables.

Guests are untrusted. The rules never change; what changes are the sets that they ask, whose elements come and go
with the machines. Guaranteed, for every interface in the set `bridges`:

- a guest sends IPv4 and ARP only, from its own MAC and its own address, or its frame is dropped on arrival;
- a guest whose address is in `nat` reaches the world under the host's address; others reach nothing beyond the host;
- on the host itself a guest reaches nothing but an answer to a ping and to what the host asked it first, except the
  (protocol, port) pairs in `host_services`, an empty set that is kept whatever is done here;
- nobody out there opens a connection to a guest, and no guest to another, not even by way of the gateway.

It fails closed: a TAP that the sets do not know can send nothing.

Each change is one transaction that also restates the rules, so it needs no state and it does not matter who is
first; sets keep their elements. The tables are called `banger`, in the families `ip` and `bridge`; removing both
(`nft delete table ip banger`) removes all there is.

Not promised: that these tables outlive others' commands. After `nft flush ruleset` (a restart of nftables.service, with
Debian's own file) guests are held by nothing until the next of them starts: then all are known again, but for their way
out, which `banger vm set NAME --nat` gives back. Nor that another firewall lets through what is accepted here: in
nftables a packet must pass every table, and where Docker sets the policy of FORWARD to drop, guests need a rule in its
chain DOCKER-USER. Nor is the host's memory of past connections cleared: an address that is given to a new guest at once
can still receive answers meant for the old.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from banger.network.subnet import TAP_PREFIX, Subnet
from banger.network.tap import list_taps
from banger.run import get_program, run

# `related` is narrowed to the errors of a connection: an ICMP redirect counts as related, too.
# `th dport` is the port of TCP, UDP, SCTP and DCCP alike.
# The bridge's chain comes before all others of its family, so that nothing learns a forged address first; dropping
# what is neither `ip` nor `arp` keeps IPv6 (router advertisements), VLAN tags and STP away from the host.
_RULES = f"""
add table bridge banger
add set bridge banger guests {{ type ifname . ether_addr . ipv4_addr; }}
add chain bridge banger prerouting {{ type filter hook prerouting priority -300; policy accept; }}
flush chain bridge banger prerouting
table bridge banger {{
  chain prerouting {{
    iifname != "{TAP_PREFIX}*" accept
    ether type ip iifname . ether saddr . ip saddr @guests accept
    ether type arp arp htype 1 arp ptype ip iifname . ether saddr . arp saddr ip @guests \
iifname . arp saddr ether . arp saddr ip @guests accept
    drop
  }}
}}

add table ip banger
add set ip banger bridges {{ type ifname; }}
add set ip banger nat {{ type ipv4_addr; }}
add set ip banger host_services {{ type inet_proto . inet_service; }}
add chain ip banger input {{ type filter hook input priority filter; policy accept; }}
add chain ip banger forward {{ type filter hook forward priority filter; policy accept; }}
add chain ip banger postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
flush chain ip banger input
flush chain ip banger forward
flush chain ip banger postrouting
table ip banger {{
  chain input {{
    iifname != @bridges accept
    ct state established accept
    ct state related icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept
    icmp type echo-request accept
    meta l4proto . th dport @host_services accept
    drop
  }}
  chain forward {{
    iifname @bridges oifname @bridges drop
    iifname @bridges ip saddr @nat accept
    iifname @bridges drop
    oifname @bridges ct state established,related accept
    oifname @bridges drop
  }}
  chain postrouting {{
    ip saddr @nat oifname != @bridges masquerade
  }}
}}
"""


def check_firewall() -> None:
    """Raises `BangerError` (missing-program) before anything is changed."""
    get_program("nft")


def admit(subnet: Subnet, address: IPv4Address, *, nat: bool) -> None:
    """The rules are in force and know the guest, with or without a way out.

    They know the others too: who has a TAP was admitted, whatever somebody else has done to the tables since.
    """
    _apply(
        f'add element ip banger bridges {{ "{subnet.bridge}" }}',
        *(_add(_guest(subnet, each)) for each in {address, *list_taps(subnet)}),
        _add(_nat(address)) if nat else _delete(_nat(address)),
    )


def expel(subnet: Subnet, address: IPv4Address) -> None:
    """The rules know the guest no more; one that they never knew is fine."""
    _apply(_delete(_nat(address)), _delete(_guest(subnet, address)))


def _apply(*changes: str) -> None:
    run(["nft", "-f", "-"], stdin="\n".join((_RULES, *changes, "")).encode("ascii"))


def _guest(subnet: Subnet, address: IPv4Address) -> str:
    tap, mac = subnet.tap_of(address), subnet.mac_of(address)
    return f'element bridge banger guests {{ "{tap}" . {mac} . {address} }}'


def _nat(address: IPv4Address) -> str:
    return f"element ip banger nat {{ {address} }}"


def _add(element: str) -> str:
    return f"add {element}"


def _delete(element: str) -> str:
    """Without an error for a missing one: adding what is there changes nothing. (`destroy` needs Linux 6.3.)"""
    return f"add {element}\ndelete {element}"
