"""A content-addressed store: files named by their BLAKE3, records of what was built from what, locks, owners.

What only looking after it needs (gc, du, verify) is imported when it is asked for: most commands only build.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cache.actions import JSON, Record, format_record, key_of, parse_record
from cache.digests import Digest, Object, parse_digest
from cache.growth import Growth
from cache.locks import Holder, WaitAbandoned
from cache.objects import ObjectWriter
from cache.store import Store

if TYPE_CHECKING:
    from cache.collect import YOUNG_S, Collection, Dropped, Kept, Policy, Why
    from cache.usage import KindUsage, Usage
    from cache.verify import Finding, Problem, Verification

_LATE = {
    "YOUNG_S": "collect",
    "Collection": "collect",
    "Dropped": "collect",
    "Kept": "collect",
    "Policy": "collect",
    "Why": "collect",
    "KindUsage": "usage",
    "Usage": "usage",
    "Finding": "verify",
    "Problem": "verify",
    "Verification": "verify",
}

__all__ = [
    "YOUNG_S",
    "Collection",
    "Digest",
    "Dropped",
    "Finding",
    "Growth",
    "Holder",
    "JSON",
    "Kept",
    "KindUsage",
    "Object",
    "ObjectWriter",
    "Policy",
    "Problem",
    "Record",
    "Store",
    "Usage",
    "Verification",
    "WaitAbandoned",
    "Why",
    "format_record",
    "key_of",
    "parse_digest",
    "parse_record",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"cache.{_LATE[name]}"), name)
