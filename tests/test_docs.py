"""Every setting, route, command, counter and reason is documented."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from mallard.cli.main import mallard
from mallard.config import Config, ServerConfig
from mallard.ingest.address import PRESETS
from mallard.ingest.admission import Reason
from mallard.server import Server
from mallard.settings import load, setting_names
from mallard.web.app import create_app
from tests.documents import README, ROOT, blocks

EXAMPLE = (ROOT / "config.example.toml").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(Config(server=ServerConfig(data=tmp_path_factory.mktemp("data"))))
    yield server
    server.start()  # what was started can be stopped
    server.stop()


def test_every_setting_stands_below_a_sentence_about_it() -> None:
    tree = tomllib.loads(EXAMPLE)
    assert sorted(f"{table}.{key}" for table in tree for key in tree[table]) == sorted(
        setting_names()
    )
    lines = EXAMPLE.splitlines()
    for above, line in pairwise(lines):
        if re.match(r"\w+ = ", line):
            assert above.startswith("# ") or re.match(r"\w+ = ", above), line


@pytest.mark.parametrize("block", blocks("toml"))
def test_the_readmes_settings_can_be_loaded(block: str, tmp_path: Path) -> None:
    path = tmp_path / "mallard.toml"
    path.write_text(block)
    assert load(path, {}, {}).config != Config()


def test_every_command_is_in_the_readme() -> None:
    assert isinstance(mallard, click.Group)
    for name in mallard.commands:
        assert f"mallard {name}" in README, name


def test_every_flag_of_serve_is_in_the_readme() -> None:
    for parameter in mallard.commands["serve"].params:
        assert parameter.opts[0] in README, parameter.opts


def examples(route: str, written: set[str]) -> Iterator[str]:
    """Those of the written paths that a route answers."""
    pattern = re.sub(r"\{[^}]*\}", "[^/]+", route)
    return (path for path in written if re.fullmatch(pattern, path))


def test_every_route_is_in_the_readme(server: Server) -> None:
    paths = create_app(server).paths
    written = set(re.findall(r"`(?:GET |POST )?(/[^\s`]*)`", README))
    # Of a route with a parameter, such as a script's name, an example is enough.
    assert [path for path in paths if not written & set(examples(path, written))] == []
    assert "/api/event" in paths


def test_every_metric_is_in_the_readme(server: Server) -> None:
    names = {metric.name for metric in server.telemetry.collect()}
    assert {name for name in names if f"`{name}`" not in README} == set()
    assert len(names) > 10


def test_every_metric_of_the_readme_exists(server: Server) -> None:
    names = {metric.name for metric in server.telemetry.collect()}
    assert set(re.findall(r"`(mallard_[a-z]+_[a-z_]+)`", README)) - names == set()


def test_every_reason_to_drop_an_event_is_in_the_readme() -> None:
    reasons = set(Reason) - {Reason.ACCEPTED}
    assert {reason for reason in reasons if f"`{reason}`" not in README} == set()


def test_every_proxy_preset_is_in_the_readme_and_the_example() -> None:
    for text in (README, EXAMPLE):
        assert {name for name in PRESETS if name not in text} == set()


def test_every_file_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("http") or (ROOT / target).is_file(), target


def test_every_target_of_make_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    listed = set(re.findall(r"^([a-z-]+):[^#\n]*## ", makefile, re.MULTILINE))
    assert set(phony[1].split()) - listed == {"chromium"}  # a step of `make test`
