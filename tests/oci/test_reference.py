from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from pipelines.oci.reference import Reference, parse_reference

SHA256 = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "0123456789abcdef" * 8


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("docker.io/debian:12", "docker.io/library/debian:12", "debian:12"),
        ("index.docker.io/library/debian:12", "docker.io/library/debian:12", "debian:12"),
        ("owner/tool", "docker.io/owner/tool:latest", "owner/tool:latest"),
        ("library/owner/tool", "docker.io/library/owner/tool:latest", "library/owner/tool:latest"),
        ("ghcr.io/owner/tool:v1.2-rc_3", "ghcr.io/owner/tool:v1.2-rc_3", "ghcr.io/owner/tool:v1.2-rc_3"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        # Without a slash what follows the colon is a tag.
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("[::1]:5000/a/b:c", "[::1]:5000/a/b:c", "[::1]:5000/a/b:c"),
        ("[2001:db8::1]/a", "[2001:db8::1]/a:latest", "[2001:db8::1]/a:latest"),
        ("Host/app", "Host/app:latest", "Host/app:latest"),
        ("host_a/app", "docker.io/host_a/app:latest", "host_a/app:latest"),
        (f"debian@{SHA256}", f"docker.io/library/debian@{SHA256}", f"debian@{SHA256}"),
        (f"debian:12@{SHA512}", f"docker.io/library/debian:12@{SHA512}", f"debian:12@{SHA512}"),
        ("a__b/c.d/e--f", "docker.io/a__b/c.d/e--f:latest", "a__b/c.d/e--f:latest"),
        # The familiar form must not turn a part of the repository into a registry.
        ("docker.io/localhost/app", "docker.io/localhost/app:latest", "docker.io/localhost/app:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
        ("r.io/" + "a" * 255, "r.io/" + "a" * 255 + ":latest", "r.io/" + "a" * 255 + ":latest"),
        ("a:" + "t" * 128, "docker.io/library/a:" + "t" * 128, "a:" + "t" * 128),
    ],
)
def test_a_name_means_what_it_means_to_docker(text: str, canonical: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert reference.canonical == canonical
    assert reference.familiar == familiar


@pytest.mark.parametrize(
    "text",
    [
        "",
        " debian",
        "debian ",
        "debian\n",
        "Debian",
        "owner/Tool",
        "debian:",
        "debian:-x",
        "debian:.x",
        "debian:a b",
        "a:" + "t" * 129,
        "debian@",
        "debian@sha256:12",
        "debian@md5:" + "0" * 32,
        f"debian@{SHA256.upper()}",
        f"debian@{SHA256}@{SHA256}",
        SHA256[7:],
        "-a/b",
        "a/-b",
        "a//b",
        "/a",
        "a/",
        "a___b",
        "a._b",
        "a..b",
        "r.io/" + "a" * 256,
        "r.io:0/a",
        "r.io:65536/a",
        "r.io:x/a",
        "-r.io/a",
        "r..io/a",
        "[::1/a",
        "[::::]/a",
        "[1.2.3.4]:5000/a",
        "https://r.io/a",
        "user@r.io/a",
        "ümlaut",
        "a:ü",
        "r.io:5000/a:1:2",
        "x" * 100_000,
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BangerError) as failure:
        parse_reference(text)
    assert failure.value.reason is Reason.BAD_INPUT


words = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
components = st.builds(
    lambda first, more: first + "".join(glue + word for glue, word in more),
    words,
    st.lists(st.tuples(st.sampled_from([".", "_", "__", "-", "---"]), words), max_size=2),
)
repositories = st.lists(components, min_size=1, max_size=4).map("/".join)
labels = st.text(string.ascii_letters + string.digits, min_size=1, max_size=6)
domains = st.one_of(
    st.just("docker.io"),
    st.builds(
        lambda host, port: host + port,
        st.one_of(st.lists(labels, min_size=2, max_size=3).map(".".join), st.sampled_from(["localhost", "[::1]"])),
        st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}")),
    ),
)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}", fullmatch=True)
digests = st.sampled_from([SHA256, SHA512])


@given(domains, repositories, st.none() | tags, st.none() | digests)
def test_both_forms_of_a_reference_read_back_as_the_same(
    registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    if tag is None and digest is None:
        tag = "latest"
    reference = Reference(registry, repository, tag, digest)
    assert parse_reference(reference.canonical) == reference
    assert parse_reference(reference.familiar) == reference


pieces = st.sampled_from(
    [":", "@", "/", "//", "[", "]", ".", "-", "_", "a", "A", "5000", "localhost", SHA256, "\n", "é"]
)


@given(st.text() | st.lists(pieces, max_size=12).map("".join))
def test_wild_text_is_a_reference_or_refused_as_bad_input(text: str) -> None:
    refusal = None
    try:
        reference = parse_reference(text)
    except BangerError as failure:
        refusal = failure
    if refusal is None:
        assert parse_reference(reference.canonical) == reference
        assert parse_reference(reference.familiar) == reference
    else:
        assert refusal.reason is Reason.BAD_INPUT
        assert refusal.message.isprintable()
