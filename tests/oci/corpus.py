"""Images that say everything a layer can say, alone and together: name -> its layers, lowest first, byte by byte."""

from __future__ import annotations

import os
import random
import struct

from tests.oci.layers import (
    GNU,
    V7,
    device,
    fifo,
    file,
    folder,
    hardlink,
    header,
    layer,
    member,
    opaque,
    pad,
    pax_header,
    seal,
    symlink,
    whiteout,
)

# capability.h: VFS_CAP_REVISION_2 and _3 (with a root id), effective, CAP_NET_BIND_SERVICE | CAP_NET_RAW.
_CAPABILITY_2 = struct.pack("<5I", 0x02000001, 0x2400, 0, 0, 0)
_CAPABILITY_3 = struct.pack("<6I", 0x03000001, 0x2400, 0, 0, 0, 100_000)
# posix_acl_xattr.h: version 2, then (tag, permissions, id): owner rw, user 1234 r, group r, mask r, other none.
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0xFFFFFFFF), (2, 4, 1234), (4, 4, 0xFFFFFFFF), (0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))
)
_LATIN = b"caf\xe9-\xff\xfe"
_DEEP = "/".join(["d" * 59] * 5)
_RANDOM = random.Random(3)
_BIG = _RANDOM.randbytes(2_500_001)
_SPLIT = header(b"x", b"0")
# POSIX.1-2017, ustar: "prefix", a slash, "name".
_PREFIXED = seal(_SPLIT[:345] + b"p/q".ljust(155, b"\0") + _SPLIT[500:])
_UNVERSIONED = seal(_PREFIXED[:263] + b"\0\0" + _PREFIXED[265:])
_ABC = folder("a") + folder("a/b") + file("a/b/c", b"lower c") + file("a/b/d", b"lower d") + file("a/e", b"lower e")
_LIB = folder("usr") + folder("usr/lib") + file("usr/lib/old", b"old") + symlink("lib", "usr/lib")
_PRIVATE = layer(folder("p", mode=0o700, uid=5, xattrs={"user.a": b"1"}), file("p/old"), folder("p/q", mode=0o711))

CASES: dict[str, tuple[bytes, ...]] = {
    # What a layer takes away.
    "whiteout": (layer(_ABC), layer(whiteout("a/b/c"), whiteout("a/e"))),
    "whiteout of a folder with children": (layer(_ABC), layer(whiteout("a/b"))),
    "whiteout of what is not there": (layer(_ABC), layer(whiteout("a/x"), whiteout("x/y/z"), whiteout("a/e/f"))),
    "whiteout before the file made anew": (layer(_ABC), layer(whiteout("a/b/c"), file("a/b/c", b"upper c"))),
    "whiteout after the file made anew": (layer(_ABC), layer(file("a/b/c", b"upper c"), whiteout("a/b/c"))),
    "whiteout before the folder made anew": (
        layer(_ABC),
        layer(whiteout("a/b"), folder("a/b", mode=0o700), file("a/b/x", b"upper x")),
    ),
    "whiteout after the folder made anew": (
        layer(_ABC),
        layer(folder("a/b", mode=0o700), file("a/b/x", b"upper x"), folder("a"), whiteout("a/b")),
    ),
    "whiteout of a file that comes back later": (
        layer(_ABC),
        layer(whiteout("a/b/c")),
        layer(file("a/b/c", b"back", mode=0o600)),
        layer(whiteout("a/b")),
        layer(folder("a/b"), file("a/b/c", b"again")),
    ),
    "whiteout of a symlink keeps its target": (layer(_LIB), layer(whiteout("lib"))),
    "whiteout below a symlinked folder": (layer(_LIB), layer(whiteout("lib/old"))),
    "whiteouts of other kinds": (
        layer(_ABC, folder("keep")),
        layer(symlink("a/b/.wh.c", "d"), member("a/b/.wh.d", b"1", link="a/e"), folder("a/.wh.e")),
    ),
    "whiteouts of AUFS itself": (
        layer(_ABC),
        layer(file(".wh..wh.aufs"), folder(".wh..wh.plnk"), folder(".wh..wh.orph"), file("f")),
    ),
    "opaque before its own entries": (
        layer(_ABC),
        layer(folder("a"), opaque("a"), folder("a/b", mode=0o711), file("a/b/x", b"upper x")),
    ),
    "opaque after its own entries": (
        layer(_ABC),
        layer(
            folder("a"), folder("a/b", mode=0o711), file("a/b/x", b"upper x"), folder("a/b", mode=0o711), opaque("a")
        ),
    ),
    "opaque between its own entries": (
        layer(_ABC),
        layer(folder("a", mode=0o770), file("a/1"), opaque("a"), file("a/2")),
        layer(opaque("a"), file("a/3")),
    ),
    "opaque that empties a folder": (layer(_ABC), layer(opaque("a/b"))),
    "opaque of what is not there": (layer(_ABC), layer(opaque("x"), opaque("a/x/y"))),
    "opaque of the root": (layer(_ABC, file("f")), layer(file("g"), opaque(""), file("h"))),
    "opaque below a symlinked folder": (layer(_LIB), layer(opaque("lib"), file("lib/new", b"new"))),
    "opaque and whiteouts together": (
        layer(_ABC),
        layer(opaque("a/b"), whiteout("a/b/c"), whiteout("a/e"), file("a/b/c", b"new")),
    ),
    "whiteout before what implies the folder": (_PRIVATE, layer(whiteout("p"), file("p/new"))),
    "whiteout after what implies the folder": (_PRIVATE, layer(file("p/new"), whiteout("p"))),
    "opaque after what implies the folder": (_PRIVATE, layer(file("p/q/new"), opaque("p"), opaque(""))),
    "a folder that looks like a whiteout": (layer(folder("x"), file("x/y")), layer(file(".wh.x/z"))),
    # Names that share an inode.
    "hard links within a layer": (
        layer(folder("a"), file("a/1", b"one", mode=0o600, uid=5), hardlink("a/2", "a/1"), hardlink("3", "./a/1")),
    ),
    "hard links in a chain": (layer(file("1", b"one"), hardlink("2", "1"), hardlink("3", "2"), hardlink("0", "3")),),
    "hard links across layers": (layer(_ABC), layer(hardlink("a/b/link", "a/b/c"), hardlink("link", "/a/e"))),
    "hard link keeps the inode when its target is replaced": (
        layer(file("1", b"one"), hardlink("2", "1")),
        layer(file("1", b"other")),
    ),
    "hard link to what the same layer replaces": (
        layer(file("1", b"lower")),
        layer(hardlink("2", "1"), file("1", b"upper"), hardlink("3", "1")),
    ),
    "hard link of which one name goes": (layer(file("1", b"one"), hardlink("2", "1")), layer(whiteout("1"))),
    "hard link to what the same layer takes away": (
        layer(file("1", b"one"), file("2", b"two")),
        layer(hardlink("a", "1"), whiteout("1"), hardlink("b", "2"), opaque("")),
    ),
    "hard link to a symlink": (layer(symlink("s", "nowhere"), hardlink("t", "s")),),
    "hard link to a fifo and a device": (
        layer(fifo("f"), hardlink("g", "f"), device("c", b"3", 1, 3), hardlink("d", "c")),
    ),
    "hard link through a symlinked folder": (layer(_LIB), layer(hardlink("lib/new", "lib/old"))),
    "hard link over a file and over a link": (
        layer(file("1", b"one"), file("2", b"two"), hardlink("3", "2")),
        layer(hardlink("2", "1")),
        layer(hardlink("3", "2"), hardlink("4", "3")),
    ),
    "hard link with a size that means nothing": (
        layer(file("1", b"one" * 999), header(b"2", b"1", 2997, link=b"1"), file("3", b"three")),
    ),
    "hard link has no say in metadata": (
        layer(file("1", b"one", mode=0o600), hardlink("2", "1", mode=0o777, uid=9, mtime=5, xattrs={"user.a": b"b"})),
    ),
    # One kind becomes another.
    "a file becomes a folder and back": (
        layer(file("x", b"file")),
        layer(folder("x"), file("x/y", b"below")),
        layer(file("x", b"file again", mode=0o755)),
        layer(whiteout("x")),
        layer(folder("x")),
    ),
    "a folder becomes a symlink": (layer(_ABC), layer(symlink("a", "elsewhere")), layer(folder("elsewhere"))),
    "a file becomes a fifo becomes a device": (layer(file("x")), layer(fifo("x")), layer(device("x", b"4", 8, 1))),
    "a file is replaced with one of no xattrs": (
        layer(file("x", xattrs={"user.a": b"1"}, mode=0o755)),
        layer(file("x")),
    ),
    "a symlink is replaced": (layer(_LIB), layer(symlink("lib", "lib64")), layer(file("lib", b"file now"))),
    # Ways through symlinks.
    "a symlinked folder is written through": (layer(_LIB), layer(file("lib/new", b"new"), folder("lib/sub"))),
    "an entry for the folder ends the symlink": (layer(_LIB), layer(folder("lib"), file("lib/new", b"new"))),
    "an absolute symlink stays inside": (
        layer(folder("usr"), folder("usr/lib"), symlink("lib", "/usr/lib")),
        layer(file("lib/new", b"new"), folder("lib/sub")),
    ),
    "a dangling symlink is written through": (
        layer(symlink("s", "no/where")),
        layer(file("s/x", b"x"), whiteout("s/y/z")),
    ),
    "a symlink through what is missing": (
        layer(folder("b"), symlink("s", "missing/../b")),
        layer(file("s/x", b"x")),
    ),
    "symlinks in a chain": (
        layer(
            folder("d"),
            folder("d/e"),
            folder("f"),
            symlink("d/e/up", "../../f"),
            symlink("s", "t"),
            symlink("t", "/d/e"),
        ),
        layer(file("s/x", b"x"), file("s/up/y", b"y"), file("t/w", b"w")),
    ),
    "a symlink of the same layer is written through": (layer(folder("d"), symlink("s", "d"), file("s/x", b"x")),),
    "a symlink comes after what was written": (
        layer(folder("s"), file("s/x", b"lower")),
        layer(file("s/y", b"upper"), folder("d"), symlink("s", "d"), file("s/z", b"z")),
    ),
    # Folders.
    "implied parents": (layer(file("a/b/c/d", b"deep"), symlink("x/y", "z")),),
    "implied parents get their own entry later": (
        layer(file("a/b/c", b"c"), folder("a/b", mode=0o711, uid=3), folder("a", mode=0o700, gid=4)),
    ),
    "children first": (
        layer(file("a/b/c", b"c"), file("a/x", b"x"), folder("a/b", mode=0o700), folder("a", mode=0o750), folder(".")),
    ),
    "a folder's metadata changes, its children stay": (
        layer(_ABC),
        layer(folder("a", mode=0o2775, uid=7, gid=8, mtime=1_400_000_000, xattrs={"user.new": b"yes"})),
    ),
    "a folder's xattrs go with its next entry": (
        layer(folder("a", xattrs={"user.a": b"1", "trusted.b": b"2"}), file("a/x")),
        layer(folder("a")),
    ),
    "a folder written below keeps its metadata": (
        layer(folder("a", mode=0o1777, uid=9, mtime=1_300_000_000, xattrs={"user.a": b"1"})),
        layer(file("a/x"), whiteout("a/none")),
        layer(whiteout("a/x")),
    ),
    "the root has an entry": (layer(folder("./", mode=0o711, uid=11, gid=12, mtime=99, xattrs={"user.r": b"/"})),),
    "the root as kaniko writes it": (layer(folder("x"), member("/", b"5", mode=0o711, uid=3), file("y")),),
    "the root changes": (layer(folder("./", mode=0o700), file("x")), layer(folder(".", mode=0o555, mtime=77))),
    "the root has no entry": (layer(file("x")),),
    # What a file is.
    "modes": (
        layer(
            *(file(f"{mode:o}", b"#!", mode=mode) for mode in (0, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777, 0o100640)),
            *(folder(f"d{mode:o}", mode=mode) for mode in (0, 0o1777, 0o2775, 0o7000, 0o40755)),
        ),
    ),
    "symlinks of any mode": (
        layer(*(member(f"l{mode:o}", b"2", link="x", mode=mode) for mode in (0o644, 0o777, 0, 0o4755))),
    ),
    "owners past 16 and 21 bits": (
        layer(
            file("a", uid=65_536, gid=70_000),
            folder("b", uid=2_097_152, gid=4_294_967_294),
            file("c", uid=3_000_000_000, gid=2_097_151, magic=GNU),
            symlink("d", "a", uid=100_000, gid=100_001),
        ),
    ),
    "owners and sizes by pax": (
        layer(
            file("a", b"", pax={"uid": "65537", "gid": "65538", "uname": "wheel", "gname": "gr\xfcn"}),
            pax_header({"size": "3"}) + header(b"b", b"0", 0) + pad(b"abc"),
            pax_header({"path": "real", "comment": "c" * 2000}) + header(b"false", b"0"),
        ),
    ),
    "devices and fifos": (
        layer(
            folder("dev"),
            device("dev/null", b"3", 1, 3, mode=0o666),
            device("dev/sda", b"4", 8, 0, mode=0o660, gid=6),
            device("dev/wide", b"3", 4095, 1_048_575),
            device("dev/wider", b"4", 259, 65_536, magic=GNU),
            fifo("dev/fifo", mode=0o622),
        ),
    ),
    "xattrs": (
        layer(
            file("ping", b"elf", mode=0o755, xattrs={"security.capability": _CAPABILITY_2}),
            file("web", b"elf", mode=0o755, xattrs={"security.capability": _CAPABILITY_3}),
            file("acl", b"acl", mode=0o640, xattrs={"system.posix_acl_access": _ACL}),
            folder("d", mode=0o750, xattrs={"system.posix_acl_default": _ACL, "trusted.t": b"\0\1\0", "user.e": b""}),
            file("many", xattrs={f"user.{n}": bytes([n]) * n for n in range(40)}),
            file("wild", xattrs={"user.bytes": bytes(range(256)), "user.equals=in=name": b"a=b\nc=d\n"}),
        ),
        layer(file("d/child"), hardlink("ping2", "ping")),
    ),
    "xattrs of what is no file": (
        layer(
            symlink("s", "x", xattrs={"trusted.t": b"on a link"}),
            fifo("p", xattrs={"trusted.t": b"on a fifo"}),
            device("c", b"3", 1, 3, xattrs={"trusted.t": b"on a device", "security.s": b"1"}),
            file("large", xattrs={"user.large": b"x" * 3000}),
        ),
    ),
    "notes of an overlay filesystem": (
        layer(folder("a", xattrs={"trusted.overlay.opaque": b"y", "trusted.t": b"kept"}), file("a/x")),
        layer(file("y", b"y", xattrs={"trusted.overlay.metacopy": b"\0", "trusted.overlay.redirect": b"/etc"})),
    ),
    "pax records that mean nothing here": (
        layer(
            file(
                "x",
                pax={"LIBARCHIVE.xattr.user.x": "eA==", "SCHILY.acl.access": "user::rw-", "atime": "1.5", "ctime": "9"},
            ),
            file(
                "y",
                pax={"SCHILY.fflags": "nodump", "SCHILY.xattr.user.empty": "", "GNU.sparse.x": "1", "linkpath": "z"},
            ),
        ),
    ),
    "empty files and a large one": (
        layer(file("0"), file("511", b"a" * 511), file("512", b"b" * 512), file("big", _BIG)),
    ),
    "times": (
        layer(
            file("epoch", mtime=0),
            file("before 1970", mtime=-86_400),
            file("before 1970, a part", mtime="-1.25"),
            file("a part", mtime="1500000000.999999999"),
            file("after 2038", mtime=2_200_000_000),
            file("past 33 bits", mtime=9_000_000_000),
            file("base 256", mtime=8_589_934_593, magic=GNU),
            file("base 256, before 1970", mtime=-5, magic=GNU),
            folder("a folder", mtime=-7),
            symlink("a symlink", "x", mtime=5),
        ),
    ),
    # What a file is called.
    "long names": (
        layer(
            *(folder("/".join(["d" * 59] * n)) for n in range(1, 6)),
            file(_DEEP + "/leaf", b"300 bytes"),
            symlink("to", _DEEP + "/leaf"),
            hardlink("l" * 255, _DEEP + "/leaf"),
        ),
    ),
    "long names as GNU tar writes them": (
        layer(
            *(folder("/".join(["d" * 59] * n), magic=GNU) for n in range(1, 6)),
            file(_DEEP + "/leaf", b"300 bytes", magic=GNU),
            symlink("to", _DEEP + "/" + "t" * 200, magic=GNU),
            hardlink("l" * 255, _DEEP + "/leaf", magic=GNU),
        ),
    ),
    "names of exactly 99, 100 and 101 bytes": (layer(*(file("n" * n, b"%d" % n) for n in (99, 100, 101, 155, 156))),),
    "names that are not UTF-8": (
        layer(
            file(_LATIN, b"latin"),
            symlink(b"link", _LATIN),
            file(b"p", b"pax", pax={"hdrcharset": "BINARY", "path": b"pax-" + _LATIN}),
            file(b"g" * 120 + _LATIN, b"gnu", magic=GNU),
            file(_LATIN * 20, b"pax without a charset"),
        ),
        layer(whiteout(os.fsdecode(_LATIN))),
    ),
    "odd names": (
        layer(
            *(
                file(name, name.encode())
                for name in ("-rf", "a b ", " lead", "new\nline", "quote'\"", "back\\slash", "~")
            ),
            *(
                file(name)
                for name in ("*", "$(id)", "tab\t", "\x1b[31m", "é\u0301", "e\u0301\u0301", "...", ".wh", "wh.")
            ),
            symlink("to", "new\nline and -rf "),
            folder("dots..", mode=0o700),
        ),
        layer(whiteout("new\nline"), whiteout("-rf"), file("dots../x")),
    ),
    "names with needless slashes and dots": (
        layer(file("./a//b/./c", b"c"), folder("./d//"), member("e", b"5", mode=0o700), hardlink("f", ".//a/b//c")),
        layer(file("a/b/.//.wh.c"), file(".//a/b/x")),
    ),
    # Forms of tar.
    "old tar": (
        layer(
            header(b"d/", b"\0", mode=0o700, magic=V7),
            header(b"d/f", b"\0", 3, magic=V7) + pad(b"old"),
            header(b"d/l", b"1", link=b"d/f", magic=V7),
            header(b"d/s", b"2", link=b"f", mode=0o777, magic=V7),
        ),
    ),
    "name split by ustar's prefix": (layer(_PREFIXED, file("p/y")),),
    "name split by the prefix of a ustar of no version": (layer(_UNVERSIONED, file("p/y")),),
    "a name that ends in a slash": (layer(header(b"f/", b"0", 1) + pad(b"f"), symlink("s/", "f/"), fifo("p/")),),
    "an old folder with a size": (layer(header(b"d/", b"\0", 3, mode=0o700, magic=V7), file("d/f")),),
    "a global pax header": (layer(pax_header({"comment": "0123abcd"}, b"g"), file("x")),),
    "a contiguous file": (layer(member("x", b"7")),),
    "no end": (file("x", b"no zeros follow"),),
    "something after the end": (layer(file("x"), file("y")) + bytes(20 * 512),),
    "a folder with a size that means nothing": (layer(header(b"d/", b"5", 4096, mode=0o755), file("d/f", b"f")),),
    # Images.
    "an empty layer": (layer(file("x")), layer(), layer(file("y"))),
    "nothing at all": (layer(),),
    "the same layer twice": (layer(_ABC), layer(whiteout("a/b")), layer(_ABC)),
    "an entry twice in a layer": (
        layer(
            file("x", b"first"), file("x", b"second", mode=0o600), folder("y"), file("y/z"), file("y", b"now a file")
        ),
    ),
    "an entry thrice, with a link between": (
        layer(file("x", b"first"), hardlink("y", "x"), file("x", b"second"), symlink("x", "y"), hardlink("z", "x")),
    ),
    "60 layers": tuple(
        layer(file(f"f{n % 7}", b"%d" % n), folder(f"d{n % 5}", mode=0o700 + n), whiteout(f"f{(n + 3) % 7}"))
        for n in range(60)
    ),
    "everything": (
        layer(
            _ABC, _LIB, file("cap", xattrs={"security.capability": _CAPABILITY_2}), hardlink("cap2", "cap"), fifo("p")
        ),
        layer(
            file("lib/x", b"x"),
            hardlink("y", "lib/x"),
            whiteout("a/b"),
            folder("a/b"),
            file("a/b/c", b"2"),
            whiteout("p"),
        ),
        layer(opaque("a"), hardlink("a/cap", "cap2"), whiteout("cap"), folder("lib"), hardlink("lib/x", "usr/lib/x")),
        layer(folder("a/b", mode=0o1777), symlink("usr/lib/x", "/a"), file("lib/q", b"q")),
    ),
    # As `umoci insert` ends a layer.
    "nothing after the last content": (folder("a") + file("a/b", b"content").rstrip(b"\0"),),
}
