"""The command line: help, refusals, exit codes and JSON."""

import dataclasses
import getpass
import json
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from workflows import cli
from workflows.options import COMMANDS, Outcome, Submit, Train, docstrings, flat

MINIMAL = {
    "synthesize": ["--out", "x"],
    "prepare": ["--dataset", "folder", "--clips", "c", "--out", "x"],
    "verify": ["--shards", "x"],
    "inspect": ["--shards", "s", "--out", "x"],
    "duplicates": ["--shards", "s", "--out", "x.csv"],
    "recipes": [],
    "train": ["--stage", "all", "--shards", "s", "--out", "x"],
    "tune": ["--shards", "s", "--out", "x"],
    "evaluate": ["--shards", "s", "--checkpoint", "c"],
    "colorize": ["in.png", "--checkpoint", "c", "--out", "o.png"],
    "export": ["--checkpoint", "c", "--out", "x"],
    "submit": ["--", "true"],
    "reproduce": [
        "--dataset",
        "ave",
        "--annotations",
        "a",
        "--clips",
        "c",
        "--out",
        "o",
    ],
    "demo": [],
}


def test_help_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys\n"
        "from workflows import cli\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit as exit: assert exit.code in (0, None)\n"
        "heavy = {'torch', 'ray', 'mlflow', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--stage {1,2,3,all}" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.parse([name, "--help"])
    assert exit_info.value.code in (0, None)
    lines = [line.strip("│| ") for line in capsys.readouterr().out.splitlines()]
    flags = [i for i, line in enumerate(lines) if line.startswith("--")]
    assert len(flags) >= 2
    for i in flags:
        told = lines[i].split("  ", 1)[1:] or [lines[i + 1]]
        assert any(letter.isalpha() for letter in told[0]), lines[i]


def test_overview_gives_each_command_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(["--help"])
    overview = " ".join(word for word in capsys.readouterr().out.split() if word != "│")
    for name, kind in COMMANDS.items():
        first, _, rest = (kind.__doc__ or "").partition("\n")
        assert f"• {name} {first}" in overview
        assert not rest.strip() or rest.split("\n")[1].strip() not in overview


def test_help_is_wrapped_as_one_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(["train", "--help"])
    help_text = " ".join(word for word in capsys.readouterr().out.split() if word != "│")
    assert "Checkpoints are written to OUT/stage1" in help_text
    lines = docstrings.of_fields(Train)["stage"]
    assert "\n" not in lines
    assert lines in help_text


def test_help_is_shown_in_a_locale_that_lacks_its_characters() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workflows.cli", "--help"],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        encoding="latin-1",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "synthesize" in done.stdout


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from workflows import cli\n"
        "assert cli.main(['--version']) == 0\n"
        "heavy = {'torch', 'ray', 'mlflow', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers = [metadata.version(name) for name in ("aiaic", "torch", "ray")]
    pattern = r"aiaic (\S+) \(Python \d+\.\d+\.\d+, PyTorch (\S+), Ray (\S+)\)\n"
    found = re.fullmatch(pattern, done.stdout)
    assert found is not None, done.stdout
    assert list(found.groups()) == numbers


def test_a_closed_pipe_is_no_error() -> None:
    command = [sys.executable, "-m", "workflows.cli", "train", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 128 + signal.SIGPIPE


@pytest.fixture(scope="module")
def completions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script that README tells bash to source."""
    script = tmp_path_factory.mktemp("completion") / "aiaic.bash"
    with pytest.raises(SystemExit):
        cli.parse(["--tyro-write-completion", "bash", str(script)])
    return script


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last word, which may be empty."""
    ask = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        "$(complete -p aiaic | sed -E 's/.*-F ([^ ]+) .*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", ask, "bash", str(script), "aiaic", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tr"], ["train"]),
        (["--v"], ["--version"]),
        (["prepare", "--dataset", ""], ["vggsound", "ave", "folder"]),
        (["train", "--st"], ["--stage"]),
        (["evaluate", "--shards", "s", "--prot"], ["--protocol"]),
    ],
)
def test_bash_completes(words: list[str], offered: list[str], completions: Path) -> None:
    assert completed(completions, *words) == offered


@pytest.mark.parametrize("name", COMMANDS)
def test_bash_completes_all_flags_of_every_command(name: str, completions: Path) -> None:
    flags = {
        "--" + {"overrides": "set"}.get(field.name, field.name).replace("_", "-")
        for field in dataclasses.fields(COMMANDS[name])
    }
    positional = {"--input", "--command", "--name"} & flags
    assert set(completed(completions, name, "--")) == (flags - positional) | {"--help"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_debug(name: str) -> None:
    before = ["--json", "--debug", *MINIMAL[name]]
    options = cli.parse([name, *before])
    assert options.json
    assert options.debug
    assert not cli.parse([name, *MINIMAL[name]]).json


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_flags_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main([name, *MINIMAL[name][:-2], "--no-such-flag", *MINIMAL[name][-2:]])
    assert exit_info.value.code == 2
    assert "no-such-flag" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["train", "--stage", "4"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    assert exit_info.value.code == 2


def test_settings_may_be_listed_and_repeated() -> None:
    options = cli.parse(["train", *MINIMAL["train"], "--set", "a=1", "b=2", "--set", "c=-3"])
    assert isinstance(options, Train)
    assert flat(options.overrides) == ("a=1", "b=2", "c=-3")


def test_submit_passes_a_command_on_as_it_is() -> None:
    words = ["python", "-m", "workflows.cli", "train", "--json", "--", "--address", "x"]
    options = cli.parse(["submit", "--address", "http://h:1", "--", *words])
    assert isinstance(options, Submit)
    assert options.command == tuple(words)
    assert options.address == "http://h:1"
    assert not options.json


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["verify", "--shards", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("aiaic: error: ")
    assert str(tmp_path) in line


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cli.main(["verify", "--shards", str(tmp_path), "--debug"])


def test_json_is_the_last_line_of_stdout(
    shards: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["verify", "--shards", shards, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 36

    def noisy(options: object) -> Outcome:
        sys.stdout.write("chatter\n")
        return Outcome(values={"a": 1}, text="")

    monkeypatch.setattr(cli, "execute", noisy)
    assert cli.main(["verify", "--shards", shards, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == '{"a": 1}\n'
    assert captured.err == "chatter\n"


def test_a_user_id_without_a_name_is_given_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """PyTorch's and MLflow's imports would fail."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "LOGNAME", "USER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert cli.main(["verify", "--shards", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err
    assert getpass.getuser() == f"uid{os.getuid()}"
    assert stat.S_IMODE(Path.home().stat().st_mode) == 0o700


def test_ctrl_c_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: object) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "execute", interrupted)
    assert cli.main(["verify", "--shards", "x"]) == 130
    assert capsys.readouterr().err == "aiaic: interrupted\n"


def test_exit_code_of_an_outcome_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "execute", lambda options: Outcome(values={}, text="", exit_code=7))
    assert cli.main(["submit", "--", "false"]) == 7


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["prepare", "--dataset", "vggsound", "--clips", "CLIPS", "--out", "OUT"], "--annotations"),
        (
            [
                "prepare",
                "--dataset",
                "vggsound",
                "--annotations",
                "no.csv",
                "--clips",
                "CLIPS",
                "--out",
                "OUT",
            ],
            "no.csv",
        ),
        (["prepare", "--dataset", "folder", "--clips", "nowhere", "--out", "OUT"], "nowhere"),
        (
            ["prepare", "--dataset", "folder", "--clips", "CLIPS", "--out", "OUT", "--workers=-1"],
            "--workers is -1",
        ),
        (
            [
                "prepare",
                "--dataset",
                "folder",
                "--clips",
                "CLIPS",
                "--out",
                "OUT",
                "--set",
                "max_s=9",
            ],
            "media.max_s",
        ),
        (["prepare", "--dataset", "folder", "--clips", "ftp://h/x", "--out", "OUT"], "ftp://"),
        (["train", "--stage", "1", "--shards", "nowhere", "--out", "OUT"], "nowhere"),
        (["train", "--stage", "1", "--shards", "SHARDS", "--out", "OUT", "--recipe", "x"], "'x'"),
        (["train", "--stage", "1", "--shards", "SHARDS", "--out", "OUT", "--set", "a.b=1"], "a.b"),
        (["train", "--stage", "2", "--shards", "SHARDS", "--out", "OUT"], "--init"),
        (
            ["train", "--stage", "1", "--shards", "SHARDS", "--out", "OUT", "--split", "dev"],
            "its splits: test, train",
        ),
        (
            ["train", "--stage", "2", "--shards", "SHARDS", "--out", "OUT", "--init", "nothing"],
            "nothing",
        ),
    ],
)
def test_what_a_user_does_wrong_is_named(
    arguments: list[str],
    named: str,
    shards: str,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"OUT": str(tmp_path / "out"), "SHARDS": shards, "CLIPS": str(clips)}
    assert cli.main([places.get(word, word) for word in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert not (tmp_path / "out").exists()
