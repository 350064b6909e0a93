"""Documents say what is so: settings, help, links, tests and files that are named exist."""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
from pydantic_core import PydanticUndefined
from tests.docs.documents import DOCUMENTS, ROOT, anchors, links, prose
from typer.main import get_command

from cove.cli.app import app
from cove.server.settings import Settings

REQUIRED = ("README", "ARCHITECTURE", "SPECIFICATION", "SECURITY", "CONTRIBUTING", "CHANGELOG")
CONFIGURATION = ROOT / "docs" / "configuration.md"
# Their words for a default do not look like the value.
IN_WORDS = {"data_dir", "database_url", "public_url", "domain", "tls_cert", "tls_key"}

_ROW = re.compile(r"^\| `COVE_(\w+)` *\|([^|]*)\|([^|]*)\|([^|]*)\|$", re.M)
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_FILE = re.compile(r"`((?:src/cove|benchmarks|tools|scripts|examples|docs)/[\w./-]+)`")
_MACHINE = re.compile(r"(?<![\w/])/(?:work|tmp/brief|tmp/cove)/|/home/(?!user\b)\w+|\bfile://")


def _settings() -> dict[str, tuple[str, str]]:
    text = CONFIGURATION.read_text(encoding="utf-8").split("## Settings of clients")[0]
    return {name.lower(): (default.strip(), option.strip()) for name, default, option, _ in _ROW.findall(text)}


def test_the_documents_are_there() -> None:
    assert {path.stem for path in DOCUMENTS} >= set(REQUIRED)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    documented = _settings()
    assert name in documented, f"docs/configuration.md does not have COVE_{name.upper()}"
    default: Any = Settings.model_fields[name].default
    if name in IN_WORDS or default is PydanticUndefined:
        return
    if default is None:
        assert documented[name][0]
        assert "`" not in documented[name][0]
        return
    shown = json.dumps(default) if isinstance(default, tuple) else str(default)
    shown = shown.lower() if isinstance(default, bool) else shown
    assert documented[name][0] == f"`{shown}`"


def test_no_setting_is_documented_that_does_not_exist() -> None:
    assert _settings().keys() == Settings.model_fields.keys()


class Parameter(Protocol):
    """What is asked of an option or argument of a command."""

    name: str | None
    opts: list[str]


class Command(Protocol):
    """What is asked of a command, however the command line is built."""

    help: str | None
    params: list[Parameter]


def _commands(command: Command, path: str) -> Iterator[tuple[str, Command]]:
    yield path, command
    children: dict[str, Command] = getattr(command, "commands", {})
    for name, child in sorted(children.items()):
        yield from _commands(child, f"{path} {name}")


COMMANDS = dict(_commands(cast(Command, get_command(app)), "cove"))


def test_the_commands_are_found() -> None:
    assert {"cove run", "cove serve", "cove keys create", "cove templates build", "cove doctor"} <= COMMANDS.keys()


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_has_a_help_text(path: str) -> None:
    command = COMMANDS[path]
    assert command.help, f"{path} has no help text"
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{path}: {parameter.name} has no help text"


@pytest.mark.parametrize("option", sorted(option for _, option in _settings().values() if option))
def test_options_in_the_table_exist(option: str) -> None:
    options = {name for parameter in COMMANDS["cove serve"].params for name in parameter.opts}
    assert option.strip("`") in options


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_tests_and_files_exist(document: Path) -> None:
    text = prose(document)
    for path, name in _TEST.findall(text):
        assert (ROOT / path).is_file(), f"{document.name} names {path}"
        assert not name or re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.M), f"{path}::{name}"
    for path in _FILE.findall(text):
        assert (ROOT / path).exists(), f"{document.name} names {path}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_path_of_a_machine(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert not _MACHINE.findall(text)
    if ROOT.parent != Path("/"):
        assert f"{ROOT.parent}/" not in text


@pytest.fixture(scope="module")
def figures() -> Any:
    """The program that fills in figures."""
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_rows_of_the_benchmark(figures: Any, tmp_path: Path) -> None:
    if not figures.RESULTS.exists():
        pytest.skip("nothing is measured here: run `make bench`")
    report = json.loads(figures.RESULTS.read_text(encoding="utf-8"))
    measured = {result["what"] for result in report["results"]}
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks" / "measurements").glob("*.py"))
    assert [what for what in figures.SPEED if what not in measured and f'"{what}"' not in sources] == []
    copy = tmp_path / "README.md"
    copy.write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    figures.fill(copy, "speed", figures.speed_table(report))
    assert f"| bare interpreter | {report['yardstick']['median']:.3g} ms | 1x |" in copy.read_text(encoding="utf-8")


def test_a_document_without_its_marks_is_not_filled(figures: Any, tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("nothing", encoding="utf-8")
    with pytest.raises(SystemExit):
        figures.fill(document, "speed", "1 ms")
    assert document.read_text(encoding="utf-8") == "nothing"


@pytest.mark.parametrize("name", ["README.md", "SPECIFICATION.md"])
def test_figures_have_their_place(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8").count("<!-- end of figures -->") == 1
