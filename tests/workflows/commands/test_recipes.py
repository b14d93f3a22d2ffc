"""``aiaic recipes``: every recipe and every setting is explained."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from aiaic import config
from aiaic import recipes as named
from aiaic.inference.video import VideoConfig
from aiaic.training.recipe import Recipe
from data_prep.shards.plan import BuildSettings
from workflows import cli
from workflows.commands import recipes
from workflows.options import Recipes
from workflows.options.docstrings import of_fields


def classes(configuration: object) -> Iterator[type]:
    """A configuration's class and those of its branches."""
    yield type(configuration)
    for field in dataclasses.fields(configuration):
        child = getattr(configuration, field.name)
        if dataclasses.is_dataclass(child):
            yield from classes(child)


@pytest.mark.parametrize(
    "configuration",
    [Recipe(name="x"), BuildSettings(), VideoConfig()],
    ids=lambda made: type(made).__name__,
)
def test_every_field_of_every_configuration_has_a_docstring(configuration: object) -> None:
    undocumented = [
        f"{kind.__module__}.{kind.__name__}.{field.name}"
        for kind in classes(configuration)
        for field in dataclasses.fields(kind)
        if len(of_fields(kind).get(field.name, "")) < 5
    ]
    assert undocumented == []


def test_an_undocumented_field_is_noticed() -> None:
    assert of_fields(_Parent) == {"told": "In two lines."}
    assert of_fields(_Child) == {"told": "In two lines.", "own": "Its own."}


@dataclasses.dataclass
class _Parent:
    told: int = 0
    """In two
    lines."""
    untold: int = 0


@dataclasses.dataclass
class _Child(_Parent):
    told: int = 1
    own: int = 0
    """Its own."""


def test_every_recipe_and_variant_is_listed_with_its_purpose() -> None:
    outcome = recipes.run(Recipes())
    assert set(outcome.values["recipes"]) == set(named.NETWORKS)
    assert set(outcome.values["variants"]) == set(named.VARIANTS)
    purposes = [*outcome.values["recipes"].values(), *outcome.values["variants"].values()]
    assert len(set(purposes)) == len(purposes)
    for purpose in purposes:
        assert purpose.endswith(".")
        assert " ".join(purpose.split()) in " ".join(outcome.text.split())


@pytest.mark.parametrize("name", [*named.NETWORKS, "compact/paper", "ave/no_dsg"])
def test_every_setting_is_given_as_set_takes_it(name: str) -> None:
    settings = recipes.run(Recipes(name=name)).values["settings"]
    expected = config.dotted_keys(config.to_json(named.named(name)))
    assert expected.pop("name") == name
    assert {key: setting["value"] for key, setting in settings.items()} == expected
    usual = config.dotted_keys(config.to_json(Recipe(name=name)))
    for key, setting in settings.items():
        assert setting["default"] == usual[key]
        assert not setting["choices"] or setting["value"] in setting["choices"]


def test_text_shows_value_default_choices_and_help() -> None:
    lines = recipes.run(Recipes(name="paper")).text.splitlines()
    assert lines[0] == "compact/paper"
    place = lines.index("  stage1.p_mismatch = 0.0  (default: 0.1)")
    assert lines[place + 1].strip() == of_fields(type(named.compact().stage1))["p_mismatch"]
    assert "  stage1.scene_view = same  (default: crop; choices: same, crop, frame)" in lines
    assert "  model.backbone.weights = null" in lines
    assert "``" not in "".join(lines)


@pytest.mark.parametrize("columns", [60, 100, 200])
@pytest.mark.parametrize("name", [None, "prepare", *named.NETWORKS])
def test_text_fits_the_terminal(
    name: str | None, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in recipes.run(Recipes(name=name)).text.splitlines():
        assert len(line) <= min(columns, 100) or " = " in line, line


def test_settings_of_prepare_are_those_of_its_command_line() -> None:
    settings = recipes.run(Recipes(name="prepare")).values["settings"]
    assert settings["media.size_px"]["value"] == 256
    assert settings["filters.min_motion"]["value"] is None
    assert set(settings) == set(config.dotted_keys(config.to_json(BuildSettings())))


@pytest.mark.parametrize(
    ("name", "near"),
    [("compct", "compact"), ("papr", "paper"), ("vggsound/papr", "vggsound/paper"), ("?", "ave")],
)
def test_a_mistyped_recipe_is_told_near_ones(
    name: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["recipes", name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"'{name}'" in line
    assert near in line.partition("near ones: ")[2].partition(";")[0].split(", ")


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "ave", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(recipes.run(Recipes(name="ave")).values))


def test_neither_ray_nor_mlflow_nor_a_store_is_loaded() -> None:
    code = (
        "import sys\n"
        "from workflows import cli\n"
        "assert cli.main(['recipes', 'vggsound']) == 0\n"
        "heavy = {'ray', 'mlflow', 'boto3', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "vggsound" in done.stdout
