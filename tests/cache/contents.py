"""A handful of objects of all sizes around those of a block, and the ways to put them."""

from __future__ import annotations

import io

from blake3 import blake3

from cache import Digest, Object, Store

_CONTENTS = [b"", *(b"%d" % size * (size // 4) for size in (4, 40, 4096, 5000, 9000))]
BYTES = {Digest(blake3(data).hexdigest()): data for data in _CONTENTS}
OBJECTS = {digest: Object(digest, len(data)) for digest, data in BYTES.items()}


def put_object(store: Store, digest: Digest, way: str) -> None:
    data = BYTES[digest]
    if way == "bytes":
        made = store.put_bytes(data)
    elif way == "stream":
        made = store.put_stream(io.BytesIO(data))
    else:
        with store.temporary_dir() as folder:
            (folder / "made").write_bytes(data)
            made = store.put_file(folder / "made")
    assert made == OBJECTS[digest]
