"""A recipe of one's own: what may stand in it, what is refused, and which files it can take."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from cache import Store
from pipelines.graph import build
from pipelines.oci.index import read_index
from pipelines.oci.limits import Limits
from pipelines.oci.tar import Entry, Kind
from pipelines.recipe import OwnRecipe, RecipeFile, RunStep, parse_recipe, read_recipe
from pipelines.recipe_files import plan_files
from pipelines.reporter import Silent

_PATH = Path("/work/team-tools/recipe.toml")
_KEYS = {"name", "summary", "base", "suite", "packages", "kernel", "file", "run"}
_FULL = """
name = "tools"
summary = "What the team needs"
base = "debian-bookworm"
kernel = "debian-6.12"
[[file]]
source = "files/motd"
target = "/etc/motd"
mode = "0640"
[[file]]
source = "bin"
target = "/opt/bin"
[[run]]
command = "apt-get update && apt-get install -y jq"
[[run]]
command = "true"
network = false
"""


def parse(text: str, name: str | None = None) -> OwnRecipe:
    return parse_recipe(text.encode(), _PATH, name)


def refusal(text: str) -> BangerError:
    with pytest.raises(BangerError) as refused:
        parse(text)
    assert refused.value.reason is Reason.BAD_INPUT
    return refused.value


def test_everything_that_a_recipe_can_say() -> None:
    assert parse(_FULL) == OwnRecipe(
        path=_PATH,
        name="tools",
        digest=blake3(_FULL.encode()).hexdigest(),
        summary="What the team needs",
        base="debian-bookworm",
        kernel="debian-6.12",
        files=(RecipeFile("files/motd", "etc/motd", 0o640), RecipeFile("bin", "opt/bin")),
        runs=(RunStep("apt-get update && apt-get install -y jq"), RunStep("true", network=False)),
    )


def test_a_suite_with_packages_instead_of_a_base() -> None:
    found = parse('suite = "trixie"\npackages = ["systemd-sysv", "g++", "libc6"]')
    assert (found.base, found.suite, found.packages) == (None, "trixie", ("systemd-sysv", "g++", "libc6"))


@pytest.mark.parametrize(
    ("said", "given", "name"), [("", None, "team-tools"), ('name = "a"', None, "a"), ('name = "a"', "b", "b")]
)
def test_the_name_is_the_user_s_or_the_recipe_s_or_the_folder_s(said: str, given: str | None, name: str) -> None:
    assert parse(f'{said}\nbase = "x"', given).name == name


def test_a_file_is_named_after_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "x"')
    (tmp_path / "recipe.toml").write_text('base = "y"\nname = "z"')
    assert read_recipe(tmp_path / "mine.toml").name == "mine"
    assert (read_recipe(tmp_path).base, read_recipe(tmp_path).folder) == ("y", tmp_path)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(BangerError) as refused:
            read_recipe(path)
        assert refused.value.reason is Reason.NOT_FOUND


@given(st.text(min_size=1).filter(lambda key: key not in _KEYS))
def test_a_key_that_is_not_known_is_refused_wherever_it_stands(key: str) -> None:
    quoted = '"' + "".join(f"\\U{ord(each):08x}" for each in key) + '"'
    try:
        tomllib.loads(f"{quoted} = 1")
    except tomllib.TOMLDecodeError:
        # Half of a surrogate pair.
        return
    refusal(f'{quoted} = 1\nbase = "x"')
    for table, needed in (("file", 'source = "a"\ntarget = "/a"'), ("run", 'command = "x"')):
        if key not in ("source", "target", "mode", "command", "network"):
            refusal(f'base = "x"\n[[{table}]]\n{needed}\n{quoted} = 1')


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('bsae = "x"', "base"),
        ('base = "x"\n[[runs]]\ncommand = "x"', "run"),
        ('base = "x"\n[[run]]\ncomand = "x"', "command"),
        ('base = "x"\n[[file]]\nsrc = "x"', "source"),
    ],
)
def test_the_nearest_key_is_named(text: str, meant: str) -> None:
    assert repr(meant) in refusal(text).hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "base = 1",
        'base = ""',
        'base = "-"',
        'base = "x"\nsuite = "y"',
        'base = "x"\npackages = ["jq"]',
        'suite = "-oDir=/"',
        'suite = "a b"',
        'suite = "x"\npackages = ["-oAPT::Update::Pre-Invoke::=id"]',
        'suite = "x"\npackages = ["?essential"]',
        'suite = "x"\npackages = ["a,b"]',
        'suite = "x"\npackages = "jq"',
        'base = "x"\nname = "../x"',
        'base = "x"\nname = "A"',
        'base = "x"\nkernel = "/etc"',
        'base = "x"\nfile = "x"',
        'base = "x"\n[file]\nsource = "x"',
        'base = "x"\n[[run]]',
        'base = "x"\n[[run]]\ncommand = "  "',
        'base = "x"\n[[run]]\ncommand = ["ls"]',
        'base = "x"\n[[run]]\ncommand = "a\\u0000b"',
        'base = "x"\n[[run]]\ncommand = "x"\nnetwork = "no"',
        'base = "x"\n[[run]]\ncommand = "' + "x" * 100_001 + '"',
        "base = ",
    ],
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    refusal(text)


def test_what_is_no_utf_8_is_refused() -> None:
    with pytest.raises(BangerError) as refused:
        parse_recipe(b"base = '\xff'", _PATH)
    assert refused.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("/etc/passwd", "/x"),
        ("../x", "/x"),
        ("a/../../x", "/x"),
        ("a", "x"),
        ("a", "/"),
        ("a", "/x/"),
        ("a", "/x/../y"),
        ("a", "//x"),
        ("a", "/.wh.x"),
        ("a", "/x/.wh..wh..opq"),
    ],
)
def test_a_file_from_elsewhere_or_to_nowhere_is_refused(source: str, target: str) -> None:
    refusal(f'base = "x"\n[[file]]\nsource = "{source}"\ntarget = "{target}"')


@pytest.mark.parametrize("mode", ["0999", "64", "u+x", "07777777", "-644", "0o644"])
def test_a_mode_that_is_none_is_refused(mode: str) -> None:
    refusal(f'base = "x"\n[[file]]\nsource = "a"\ntarget = "/a"\nmode = "{mode}"')


def take(store: Store, folder: Path, *files: RecipeFile) -> list[Entry]:
    step = plan_files("test", files, folder, Limits())
    record = build(store, [step], Silent()).record(step)
    assert record is not None
    return read_index(store.path(record.outputs["index"])).entries


def test_a_folder_comes_with_all_that_is_in_it_and_belongs_to_root(store: Store, tmp_path: Path) -> None:
    tree = tmp_path / "recipe/tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/run").write_text("#!")
    (tree / "sub/run").chmod(0o711)
    (tree / "plain").write_text("x")
    (tree / "out").symlink_to("/etc/passwd")
    os.utime(tree / "plain", (1, 1))
    found = take(store, tmp_path / "recipe", RecipeFile("tree", "opt/tree"), RecipeFile("tree/plain", "p", 0o4755))
    assert [(each.path, each.kind, oct(each.mode), each.uid, each.target) for each in found] == [
        ("opt/tree", Kind.FOLDER, "0o755", 0, ""),
        ("opt/tree/out", Kind.SYMLINK, "0o777", 0, "/etc/passwd"),
        ("opt/tree/plain", Kind.FILE, "0o644", 0, ""),
        ("opt/tree/sub", Kind.FOLDER, "0o755", 0, ""),
        ("opt/tree/sub/run", Kind.FILE, "0o755", 0, ""),
        ("p", Kind.FILE, "0o4755", 0, ""),
    ]
    assert len({each.mtime_ns for each in found}) == 1


def test_the_same_files_elsewhere_are_the_same_step_and_other_content_is_another(tmp_path: Path) -> None:
    parameters = []
    for place, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "f").write_text(text)
        parameters.append(plan_files("n", [RecipeFile("f", "etc/f")], tmp_path / place, Limits()).parameters)
    assert parameters[0] == parameters[1] != parameters[2]


def test_a_file_that_is_changed_before_it_is_used_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    step = plan_files("n", [RecipeFile("f", "etc/f")], tmp_path, Limits())
    for text in ("y", "yy", ""):
        (tmp_path / "f").write_text(text)
        with pytest.raises(BangerError) as refused:
            build(store, [step], Silent())
        assert refused.value.reason is Reason.WRONG_STATE
    (tmp_path / "f").write_text("x")
    build(store, [step], Silent())


def test_nothing_from_outside_of_the_folder_comes_along(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/key").write_text("x")
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "link").symlink_to("../secret")
    (recipe / "there").symlink_to(tmp_path / "secrets")
    (recipe / "in").symlink_to("file")
    (recipe / "file").write_text("inside")
    (recipe / "loop").symlink_to("loop")
    for source in ("link", "there", "there/key"):
        with pytest.raises(BangerError) as refused:
            plan_files("n", [RecipeFile(source, "x")], recipe, Limits())
        assert "leads out" in refused.value.message
    for source, reason in (("gone", Reason.NOT_FOUND), ("loop", Reason.BAD_INPUT)):
        with pytest.raises(BangerError) as refused:
            plan_files("n", [RecipeFile(source, "x")], recipe, Limits())
        assert refused.value.reason is reason
    plan_files("n", [RecipeFile("in", "x")], recipe, Limits())


def test_what_no_image_can_hold_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/.wh.passwd").touch()
    (tmp_path / "long").mkdir()
    (tmp_path / "long/f").touch()
    for file in (RecipeFile("pipe", "x"), RecipeFile("tree", "etc"), RecipeFile("long", "n" * 256)):
        with pytest.raises(BangerError) as refused:
            plan_files("n", [file], tmp_path, Limits())
        assert refused.value.reason is Reason.BAD_INPUT


def test_a_mode_is_for_one_file(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with pytest.raises(BangerError) as refused:
        plan_files("n", [RecipeFile("tree", "x", 0o644)], tmp_path, Limits())
    assert refused.value.reason is Reason.BAD_INPUT
