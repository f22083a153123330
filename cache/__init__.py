"""A content-addressed store: files named by their BLAKE3, records of what was built from what, locks, owners."""

from cache.actions import JSON, Record, format_record, key_of, parse_record
from cache.digests import Digest, Object, parse_digest
from cache.locks import Holder, WaitAbandoned
from cache.objects import ObjectWriter
from cache.store import Store
from cache.usage import Usage
from cache.verify import Finding, Problem

__all__ = [
    "Digest",
    "Finding",
    "Holder",
    "JSON",
    "Object",
    "ObjectWriter",
    "Problem",
    "Record",
    "Store",
    "Usage",
    "WaitAbandoned",
    "format_record",
    "key_of",
    "parse_digest",
    "parse_record",
]
