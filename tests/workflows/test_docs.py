"""What the documentation shows is so: commands parse, links lead somewhere, names exist."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiaic import config, recipes
from data_prep.shards.plan import BuildSettings
from workflows import cli
from workflows.options import COMMANDS, Command, Demo, Prepare, Reproduce, Train, Tune, flat

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
        *(ROOT / "docs").glob("*.md"),
    ]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FOLDERS = (*(path.name for path in ROOT.iterdir() if path.is_dir()), "deploy")


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced blocks in one of the languages; the empty one is that of commands."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [content for language, content in found if language in languages]


def inline(page: Path) -> list[str]:
    """Spans of code in the running text, also those that a line break tears."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return INLINE.findall(re.sub(r"(?<=\S)\n(?=\S)", " ", text))


def shell_lines(text: str) -> Iterator[list[str]]:
    """The words of each command of a block, without comments and variables set before it."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True) if line.isascii() or "#" not in line else []
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            yield words


def shell(page: Path) -> list[list[str]]:
    """The commands in the blocks of a page."""
    return [words for text in blocks(page, "", "sh", "bash") for words in shell_lines(text)]


def per_page(found: dict[Path, list[object]]) -> list[object]:
    """Parameters of a test, named by page and number."""
    return [
        pytest.param(each, id=f"{page.relative_to(ROOT)}-{number}")
        for page, every in found.items()
        for number, each in enumerate(every)
    ]


def ours(words: list[str]) -> bool:
    return words[0] == "aiaic" and not {"...", "COMMAND"} & set(words)


COMMANDS_SHOWN = {page: [words for words in shell(page) if ours(words)] for page in PAGES}
COMMAND_LINES = per_page(COMMANDS_SHOWN)
SPANS = per_page({page: [s for s in inline(page) if s.startswith("aiaic ")] for page in PAGES})


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_every_command_parses(words: list[str]) -> None:
    options = cli.parse(words[1:])
    check_settings(options)
    if words[1] == "submit":
        assert words[words.index("--") + 1] == "aiaic"
        check_settings(cli.parse(words[words.index("--") + 2 :]))


def check_settings(options: Command) -> None:
    """Recipes and the settings of ``--set`` exist, and their values fit."""
    if isinstance(options, Train | Tune | Reproduce):
        default = options.dataset if isinstance(options, Reproduce) else None
        recipes.load(options.recipe or default, None, flat(options.overrides))
    elif isinstance(options, Prepare):
        config.override(BuildSettings(), config.parse_settings(flat(options.overrides)))
    elif isinstance(options, Demo):
        recipes.load(settings=flat(options.overrides))


def test_commands_are_found_at_all() -> None:
    assert len(COMMAND_LINES) > 15
    with pytest.raises(SystemExit):
        cli.parse(["train", "--stage", "all", "--shards", "s", "--out", "o", "--no-such-flag", "1"])


@pytest.mark.parametrize("span", SPANS)
def test_commands_in_the_text_name_real_flags(span: str) -> None:
    name, *words = shlex.split(span)[1:]
    if name in {"COMMAND", "--help", "--version", "--tyro-print-completion"}:
        return
    assert name in COMMANDS
    known = {
        "--" + {"overrides": "set"}.get(field, field).replace("_", "-")
        for field in COMMANDS[name].__dataclass_fields__
    } | {"--help"}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_paths_modules_and_settings_exist(page: Path) -> None:
    assert [name for name in inline(page) if not known_name(name)] == []


def test_the_drawing_names_real_rooms() -> None:
    (drawing,) = blocks(ROOT / "docs" / "architecture.md", "mermaid")
    rooms = 0
    for part in drawing.split("subgraph ")[1:]:
        package = re.findall(r'^\w+\["([\w/]+)', part)[0]
        for label in re.findall(r'^ +\w+\[\(?"([^<"]+)', part, re.MULTILINE):
            for room in re.findall(r"[a-z]{3,}", label):
                rooms += 1
                path = ROOT / package / room
                assert path.is_dir() or path.with_suffix(".py").exists(), path
    assert rooms > 12


def known_name(name: str) -> bool:
    """Whether what looks like a path, a module, a script or a setting of ours is one."""
    if re.fullmatch(rf"({'|'.join(map(re.escape, FOLDERS))})/[\w./-]*", name):
        return (ROOT / name).exists() or name == "deploy/"
    if re.fullmatch(r"(aiaic|data_prep|workflows)(\.\w+)+", name):
        return known_module(name)
    if re.match(r"\w+\.py\b", name):
        return (ROOT / "benchmarks" / name.split(maxsplit=1)[0]).exists()
    sections = "model|sampling|view|augmentation|stage[123]|training|media|filters"
    if re.fullmatch(rf"({sections})(\.\w+)+", name) and not name.endswith(".safetensors"):
        return name in SETTINGS
    return True


SETTINGS = {
    **config.dotted_keys(config.to_json(recipes.named("compact"))),
    **config.dotted_keys(config.to_json(BuildSettings())),
}


def known_module(name: str) -> bool:
    """Whether a dotted name is a module, or something defined in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        source = path.with_suffix(".py")
        source = source if source.exists() else path / "__init__.py"
        if source.exists():
            text = source.read_text(encoding="utf-8")
            return all(re.search(rf"\b{part}\b", text) for part in parts[length:])
    return False


def test_unknown_names_are_noticed() -> None:
    for name in (
        "aiaic/training/nothing.py",
        "aiaic.loading.sampler.nothing_like_it",
        "workflows.nothing",
        "no_such_benchmark.py",
        "training.nothing",
    ):
        assert not known_name(name), name
    for name in ("aiaic/training/loop.py", "aiaic.loading.sampler.ledger", "training.keep"):
        assert known_name(name), name


def scripts(page: Path) -> list[list[str]]:
    """The calls of benchmarks that a page shows, in blocks and in the text."""
    spans = [words for span in inline(page) if ".py" in span for words in shell_lines(span)]
    return [words for words in [*shell(page), *spans] if script(words) is not None]


def script(words: list[str]) -> str | None:
    """The name of the script that a call starts with, after ``python`` perhaps."""
    called = words[1] if words[0] == "python" and len(words) > 1 else words[0]
    found = re.fullmatch(r"(?:benchmarks/)?(\w+\.py)", called)
    return found and found[1]


SCRIPTS = per_page({page: scripts(page) for page in PAGES})


@pytest.mark.parametrize("words", SCRIPTS)
def test_benchmarks_have_the_flags_that_are_shown(words: list[str]) -> None:
    source = (ROOT / "benchmarks" / str(script(words))).read_text(encoding="utf-8")
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert {flag for flag in flags if f'"{flag}"' not in source} == set()


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        shown = shell(page) + [
            shlex.split(span) for span in inline(page) if span.startswith("make ")
        ]
        for words in shown:
            assert words[0] != "make" or set(words[1:]) <= targets, (page, words)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def python_block(page: Path, containing: str) -> str:
    (found,) = [text for text in blocks(page, "python") if containing in text]
    return found


def test_webdataset_reads_shards_as_the_readme_shows(shards: str, tmp_path: Path) -> None:
    (tmp_path / "shards").symlink_to(shards)
    code = python_block(ROOT / "README.md", "webdataset")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 36
    assert all(line.endswith(", 3)") for line in lines)


def test_the_backbone_of_the_architecture_page_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from aiaic.networks.model import build_model

    page = ROOT / "docs" / "architecture.md"
    (tmp_path / "mine.py").write_text(python_block(page, "class Mine(Backbone)"))
    monkeypatch.syspath_prepend(tmp_path)
    (command,) = shell(page)
    options = cli.parse(command[1:])
    assert isinstance(options, Train)
    recipe = recipes.load(settings=flat(options.overrides))
    backbone = build_model(recipe.model, 0).colorizer.backbone
    assert type(backbone).__module__ == "mine"
    ab = backbone.decode(backbone.encode(torch.zeros(2, 1, 32, 48)), lambda level, x: x)
    assert ab.shape == (2, 2, 4, 6)


def test_the_readmes_python_is_that_of_the_colorizer(untrained_run: Path) -> None:
    import numpy as np

    (checkpoint,) = (untrained_run / "stage3").glob("step-*")
    code = python_block(ROOT / "README.md", "Colorizer")
    code = code.replace('"model"', repr(str(checkpoint)))
    names = {
        "picture": np.zeros((40, 60, 3), np.uint8),
        "waveform": np.zeros(44_100, np.float32),
    }
    exec(code, names)
    assert names["coloured"].rgb.shape == (40, 60, 3)
