"""Every command line in README and docs is understood by the program that it is for.

vxsniff's own are parsed by vxsniff, settings included; those of `aws` by its command line and its models of the services,
stack parameters by the templates; those of `docker` by podman, which takes the same; make's by the Makefile. What else is
in a shell block has to be shell, and a program that is named here.
"""

import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import typer.main
import yaml
from awscli.clidriver import create_clidriver
from awscli.customizations.cloudformation.deploy import DeployCommand
from click.testing import CliRunner

from tests.e2e.namespaces import PATH
from vxsniff.app import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"sh", "console", "text", "json", "yaml", "hcl"}
OTHERS = {"cd", "curl", "git", "grep", "python3", "readlink", "setcap", "tcpdump"}
KEYWORDS = {"for", "in", "do", "done"}


def blocks(text):
    """The fenced blocks: language and lines."""
    language, lines = None, []
    for line in text.splitlines():
        fence = re.match(r"\s*```(\w*)", line)
        if fence and language is None:
            language, lines = fence[1], []
        elif fence:
            yield language, lines
            language = None
        elif language is not None:
            lines.append(line)
    assert language is None, "a block is not closed"


def simple_commands(script):
    """A script's commands as words: continuation lines joined; pipes, lists and substitutions apart."""
    for line in re.sub(r"\\\n\s*", " ", script).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.wordchars += "$:@,%{}+!^[]"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;()<>"):
                words = without_prefix(words)
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def without_prefix(words):
    """Without sudo, variables, and the words of a loop."""
    while words and (words[0] in KEYWORDS | {"sudo"} or re.match(r"\w+=", words[0])):
        if words[0] == "for":
            return []
        words = words[1:]
    return words


def all_commands():
    for document in DOCUMENTS:
        text = document.read_text()
        for language, lines in blocks(text):
            if language == "console":
                lines = [line.lstrip()[2:] for line in lines if line.lstrip().startswith("$ ")]
            if language in ("sh", "console"):
                for words in simple_commands("\n".join(lines)):
                    yield pytest.param(words, id=f"{document.stem}: {' '.join(words)[:60]}")
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for span in re.findall(r"`((?:vxsniff|sniffer|docker|make|pip) [^`]+)`", prose):
            for words in simple_commands(span):
                yield pytest.param(words, id=f"{document.stem}: {' '.join(words)[:60]}")


COMMANDS = list(all_commands())


def of(*programs):
    return [command for command in COMMANDS if Path(command.values[0][0]).name in programs]


def test_blocks_say_what_they_are_and_shell_is_shell():
    assert len(COMMANDS) > 60
    for document in DOCUMENTS:
        text = document.read_text()
        for language, lines in blocks(text):
            assert language in LANGUAGES, f"{document.name}: {lines[:1]}"
            if language == "sh":
                done = subprocess.run(["bash", "-n"], input="\n".join(lines), capture_output=True, text=True)
                assert done.stderr == "", f"{document.name}: {lines[:1]}"
            if language == "yaml":
                yaml.safe_load("\n".join(lines))
        assert not re.search(r"\n\n {4}\S", re.sub(r"```.*?```", "", text, flags=re.DOTALL)), "an indented block"


def test_no_command_is_of_a_program_that_nothing_looks_at():
    known = {"vxsniff", "sniffer", "aws", "docker", "make", "pip", "promtool"} | OTHERS
    assert {Path(command.values[0][0]).name for command in COMMANDS} <= known


class Ran(Exception):
    """The command line got as far as to run."""


@pytest.mark.parametrize("words", of("vxsniff"))
def test_vxsniff_takes_its_own(words, monkeypatch):
    arguments = cli.expand_read(words[1:])
    subcommands = typer.main.get_command(cli.app).commands
    if arguments and arguments[0] in subcommands:
        done = CliRunner().invoke(typer.main.get_command(cli.app), [*arguments, "--help"])
        assert done.exit_code == 0, done.output
        return

    def ran(*given):
        raise Ran

    monkeypatch.setattr(cli, "Worker", ran)
    monkeypatch.setattr("vxsniff.app.supervisor.Supervisor", ran)
    monkeypatch.delenv("SNIFFER_ENGINE", raising=False)
    if arguments in (["--version"], ["--help"]):
        return
    with pytest.raises(Ran):
        cli.app(args=arguments, prog_name="vxsniff", standalone_mode=False)


@pytest.mark.parametrize("words", of("sniffer"))
def test_sniffer_takes_its_own(words):
    assert words[1:] in ([], ["on"], ["off"])


@pytest.mark.parametrize("words", of("make"))
def test_make_has_the_target(words):
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words[1:]) <= set(targets)


@pytest.mark.parametrize("words", of("pip"))
def test_pip_finds_the_extra(words):
    extras = set(re.findall(r"\[(\w+)\]", " ".join(words)))
    text = (
        (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("[project.")[0]
    )
    assert extras <= set(re.findall(r"^(\w+) = \[", text, re.MULTILINE))


@pytest.mark.parametrize("words", of("promtool"))
@pytest.mark.root
def test_promtool_agrees(words):
    assert subprocess.run(words, cwd=ROOT, env={"PATH": PATH}, capture_output=True).returncode == 0


@pytest.mark.parametrize("words", of("aws"))
def test_the_aws_command_line_takes_it(words):
    if words[1:3] == ["cloudformation", "deploy"]:
        deploys(words[3:])
    elif words[1] == "s3":
        assert words[2:] == ["cp", words[3], words[4]]
        assert words[4].startswith("s3://")
    else:
        words = [word.replace("$direction", "ingress") for word in words]
        script = Path(sysconfig.get_path("scripts"), "aws")
        environ = {
            "PATH": PATH,
            "AWS_CONFIG_FILE": str(ROOT / "tests/docs/aws.config"),
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        }
        done = subprocess.run([sys.executable, str(script), *words[1:]], env=environ, capture_output=True, text=True)
        # It looks at options and parameters first, and then finds nobody at the discard port.
        assert 'Could not connect to the endpoint URL: "http://127.0.0.1:9/"' in done.stderr, done.stderr


def deploys(words):
    """Its options are those of the command, and its parameters those of the template."""
    known = {f"--{row['name']}" for row in DeployCommand(create_clidriver().session).ARG_TABLE}
    assert {word for word in words if word.startswith("--")} <= known
    template = Path(words[words.index("--template-file") + 1])
    text = (ROOT / template).read_text().partition("\nConditions:")[0]
    parameters = set(re.findall(r"^  ([A-Z]\w+):$", text, re.MULTILINE))
    overrides = words[words.index("--parameter-overrides") + 1 :]
    assert overrides
    assert {word.partition("=")[0] for word in overrides} <= parameters
    required = {
        name
        for name in parameters
        if "Default:" not in re.search(rf"^  {name}:\n((?:    .*\n)+)", text + "\n", re.MULTILINE)[1]
    }
    if "VpcId" in " ".join(words):  # else it is an update
        assert required <= {word.partition("=")[0] for word in overrides}


@pytest.mark.parametrize("words", of("docker"))
@pytest.mark.root
@pytest.mark.image
def test_an_engine_takes_it(words):
    if words[1] == "compose":
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        assert words[2] in ("up", "down", "exec")
        assert words[2] != "exec" or words[3] in services
    elif words[1:3] == ["buildx", "bake"]:
        assert (ROOT / "docker-bake.hcl").exists()
        assert set(words[3:]) <= {"--push", "--print"}
    else:
        # --help is looked at when every option was understood.
        done = subprocess.run(
            ["podman", words[1], "--help", *words[2:]], env={"PATH": PATH, "HOME": "/root"}, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
