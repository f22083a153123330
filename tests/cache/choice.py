"""Whether what gc chose is what its policy says: by what has to be true of it, not by choosing once more."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cache import Collection, Digest, Policy


@dataclass(frozen=True)
class Seen:
    """An object before gc."""

    used_at: float
    size_bytes: int
    is_owned: bool
    is_leased: bool


def find_free(policy: Policy, seen: dict[Digest, Seen]) -> dict[Digest, Seen]:
    """What may go at all."""
    return {
        digest: each
        for digest, each in seen.items()
        if not each.is_owned and not each.is_leased and get_age_s(each.used_at) >= policy.young_s
    }


def check_choice(policy: Policy, seen: dict[Digest, Seen], dropped: set[Digest], collected: Collection) -> None:
    """Nothing went that must not, everything that had to, the oldest first, and no more than needed."""
    free = find_free(policy, seen)
    assert dropped <= free.keys()
    aged = {
        digest
        for digest, each in free.items()
        if policy.older_than_s is not None and get_age_s(each.used_at) >= policy.older_than_s
    }
    assert aged <= dropped
    own_bytes = sum(each.size_bytes for each in seen.values() if not each.is_owned)
    left_bytes = own_bytes - sum(free[digest].size_bytes for digest in dropped)
    assert collected.own_bytes == left_bytes
    assert sum(each.count for each in collected.kept) == len(seen) - len(dropped)
    for_size = sorted(dropped - aged, key=lambda digest: (free[digest].used_at, digest))
    target_bytes = own_bytes
    if policy.max_bytes is not None and own_bytes > policy.max_bytes:
        target_bytes = policy.max_bytes if policy.enough_bytes is None else policy.enough_bytes
        assert left_bytes <= target_bytes or dropped == free.keys()
    if for_size:
        assert left_bytes + free[for_size[-1]].size_bytes > target_bytes
        used_last = free[for_size[-1]].used_at
        assert all(each.used_at >= used_last for digest, each in free.items() if digest not in dropped)


def get_age_s(moment: float) -> float:
    return max(0.0, time.time() - moment)
