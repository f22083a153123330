"""The file as TOML: where in it a key stands, and where it is none."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from banger.settings.document import Document, read_document


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\n\nvmm = ", 3),
        (b"vmm = 'qemu'\nvmm = 'qemu'", 2),
        (b"\n\xff\xfe", 2),
        (b"a = 1 b = 2", 1),
        (b"\n\n\0", 3),
        (b'vmm = """\n\n', 3),
        (b"[vm_defaults]\n[vm_defaults]\n", 2),
        (b"\n\n[[file_sync]]\nmode = 0755\n", 4),
        (b"\nvmm = " + b"9" * 5000 + b"\n\n", 2),
        (b"\n\nvmm = " + b"[" * 5000, 3),
        (b"\r\n\r\nvmm = \r\n", 3),
    ],
)
def test_what_is_not_toml_is_refused_with_its_line(tmp_path: Path, content: bytes, line: int) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(BangerError) as caught:
        read_document(path)
    assert caught.value.reason is Reason.BAD_INPUT
    assert caught.value.message.startswith(f"{path}, line {line}: ")
    assert "\n" not in caught.value.message


# One statement each, with what they give; the lines between them are anybody's.
_STATEMENTS = [
    'plain = "x"',
    'quoted."a.b" = 1',
    'basic = """\nnot = "me"\n[nor.me]\n"""',
    "literal = '''\n[[registry]]\n# no comment\n'''",
    "array = [ # first\n  1,\n\n  # more\n  2,\n]",
    'inline = { a = 1, "b c" = 2 }',
]
_NOISE = st.sampled_from(["", "# comment", "# key = 1", "   ", '# """'])


@given(st.permutations(_STATEMENTS), st.lists(st.lists(_NOISE, max_size=3), min_size=9, max_size=9), st.booleans())
def test_the_line_of_a_key_is_where_its_statement_begins(
    statements: list[str], noise: list[list[str]], has_carriage_returns: bool
) -> None:
    tables = ["[table]\nkey = 1", "[[list]]\nkey = 1", "[[list]]\nother.key = 1"]
    lines: list[str] = []
    begins = []
    for before, statement in zip(noise, [*statements, *tables], strict=True):
        lines += before
        begins.append(len(lines) + 1)
        lines += statement.split("\n")
    text = ("\r\n" if has_carriage_returns else "\n").join(lines)
    document = Document(tomllib.loads(text), Path("config.toml"), text)
    for statement, begin in zip(statements, begins, strict=False):
        ((key, value),) = tomllib.loads(statement).items()
        assert document.find_line((key,)) == begin
        if isinstance(value, dict):
            assert all(document.find_line((key, inner)) == begin for inner in value)
    table, first, second = begins[len(statements) :]
    assert document.find_line(("table",)) == table
    assert document.find_line(("table", "key")) == table + 1
    assert document.find_line(("table", "missing")) == table
    assert document.find_line(("list",)) == first
    assert document.find_line(("list", 0, "key")) == first + 1
    assert document.find_line(("list", 1)) == document.find_line(("list", 1, "missing")) == second
    assert document.find_line(("list", 1, "other", "key")) == second + 1
