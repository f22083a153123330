"""A content-addressed store: files named by their BLAKE3, records of what was built from what, locks, owners."""

from cache.actions import JSON, Record, format_record, key_of, parse_record
from cache.collect import YOUNG_S, Collection, Dropped, Kept, Policy, Why
from cache.digests import Digest, Object, parse_digest
from cache.growth import Growth
from cache.locks import Holder, WaitAbandoned
from cache.objects import ObjectWriter
from cache.store import Store
from cache.usage import KindUsage, Usage
from cache.verify import Finding, Problem, Verification

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
