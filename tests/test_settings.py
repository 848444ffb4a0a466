from __future__ import annotations

from pathlib import Path

import pytest

from mallard.config import BufferConfig, Config, RetentionConfig, ServerConfig
from mallard.errors import ConfigError
from mallard.settings import Settings, load, setting_names, variable

EXAMPLE = Path(__file__).parents[1] / "config.example.toml"


def from_file(tmp_path: Path, text: str) -> Config:
    return load(written(tmp_path, text), {}, {}).config


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mallard.toml"
    path.write_text(text)
    return path


def refusal(path: Path | None, environment: dict[str, str], **flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environment, {f"server.{key}": value for key, value in flags.items()})
    return caught.value.detail


def test_no_file_no_variable_and_no_flag_are_the_defaults() -> None:
    assert load(None, {"HOME": "/root"}, {"server.port": None}) == Settings(Config(), {})


def test_the_example_shows_every_setting_at_its_default() -> None:
    loaded = load(EXAMPLE, {}, {})
    assert loaded.config == Config()
    assert sorted(loaded.origins) == sorted(setting_names())


def test_a_file_sets_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    config = from_file(
        tmp_path,
        """
        server.port = 9000
        [buffer]
        flush_interval_seconds = 2
        [ingest]
        filter_bots = false
        site_ids = ["a.example", "b.example"]
        [retention.sites]
        "a.example" = 30
        [geo]
        database = "places.mmdb"
        """,
    )
    assert config.server == ServerConfig(port=9000)
    assert config.buffer == BufferConfig(flush_interval_seconds=2.0)
    assert isinstance(config.buffer.flush_interval_seconds, float)
    assert config.ingest.filter_bots is False
    assert config.ingest.site_ids == ("a.example", "b.example")
    assert config.retention == RetentionConfig(sites={"a.example": 30})
    assert config.geo.database == Path("places.mmdb")


def test_a_variable_overrides_the_file_and_a_flag_overrides_both(tmp_path: Path) -> None:
    path = written(tmp_path, '[server]\nport = 1\nhost = "file"\ndata = "file"\n')
    environment = {"MALLARD_SERVER_PORT": "2", "MALLARD_SERVER_HOST": "variable"}
    config = load(path, environment, {"server.port": "3"}).config
    assert config.server == ServerConfig(host="variable", port=3, data=Path("file"))


def test_the_environment_can_name_the_file_and_the_flag_wins(tmp_path: Path) -> None:
    named = written(tmp_path, "server.port = 1")
    other = tmp_path / "other.toml"
    other.write_text("server.port = 2")
    environment = {"MALLARD_CONFIG": str(named)}
    assert load(None, environment, {}).config.server.port == 1
    assert load(other, environment, {}).config.server.port == 2


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("MALLARD_SERVER_PORT", "9000", 9000),
        ("MALLARD_INGEST_FILTER_BOTS", "false", False),
        ("MALLARD_INGEST_SITE_IDS", "a.example, b.example,", ("a.example", "b.example")),
        ("MALLARD_INGEST_SITE_IDS", "", ()),
        ("MALLARD_BUFFER_FLUSH_INTERVAL_SECONDS", "0.5", 0.5),
        ("MALLARD_GEO_DATABASE", "", None),
        ("MALLARD_GEO_DATABASE", "x.mmdb", Path("x.mmdb")),
        ("MALLARD_RETENTION_SITES", "a.example=30, b:8080=0", {"a.example": 30, "b:8080": 0}),
        ("MALLARD_RETENTION_SITES", "", {}),
        ("MALLARD_SECRET", "sixteen letters!", "sixteen letters!"),
    ],
)
def test_a_variable_is_read_as_its_settings_type(name: str, text: str, value: object) -> None:
    config = load(None, {name: text}, {}).config
    table, _, key = {variable(s): s for s in setting_names()}[name].partition(".")
    assert getattr(getattr(config, table), key) == value


@pytest.mark.parametrize(
    ("text", "line", "right"),
    [
        ("[server]\nprot = 1\n", 2, 'unknown key "prot" in [server]; did you mean "port"?'),
        ("[sever]\nport = 1\n", 1, "unknown table [sever]; did you mean [server]?"),
        ("[zzz]\n", 1, "known are [buffer], [erasure], [geo], [ingest], [log], [privacy], [proxy]"),
        ("\n\nserver = 1\n", 3, "server must be a table, written [server]"),
        ('[server]\n\nport = "80"\n', 3, 'server.port is "80"; it must be a whole number'),
        ("[server]\nport = 65536\n", 2, "is 65536; it must be a whole number, from 0 to 65535"),
        ("[server]\nport = true\n", 2, "server.port is true; it must be a whole number"),
        ("[server]\nport = 1.0\n", 2, "server.port is 1.0; it must be a whole number"),
        (
            "filter_bots = true\n[server]\n",
            1,
            'key "filter_bots" stands outside of any table; it belongs in [ingest].',
        ),
        ("[buffer]\nthreads = 1\n", 2, "stands in [buffer]; it belongs in [store] or [query]."),
        ("[ingest]\nfilter_bots = 1\n", 2, "it must be true or false"),
        ('[ingest]\nsite_ids = ["https://a.example"]\n', 2, "each the name of a site, such as"),
        ('[ingest]\nblocked_referrers = ["*.a.example"]\n', 2, "each a host, such as"),
        ('[tracker]\nevent_paths = ["/a?b"]\n', 2, 'have no "?", "#" or space'),
        (
            '[retention.sites]\n"www.a.example" = 1\n',
            2,
            'names "www.a.example"; it must be a site as it is stored',
        ),
        ('[ingest]\nsite_ids = "a"\n', 2, "it must be a list of texts"),
        ("[ingest]\nsite_ids = [\n  'a',\n  1,\n]\n", 2, "it must be a list of texts"),
        (
            'x.y = """\n[log]\nlevel = 1\n"""\n[log]\nlevel = "loud"\n',
            1,
            "unknown table [x]",
        ),
        (
            '[log] # level = "x"\n# level = "y"\nformat = "text"\nlevel = "loud"\n',
            4,
            'log.level is "loud"; it must be a text, one of "debug", "info", "warning", "error"',
        ),
        ("[buffer]\nflush_interval_seconds = nan\n", 2, "from 0.01 to 86400"),
        (
            '[retention]\n[retention.sites]\n"a.example" = 1\n"b.example" = -1\n',
            4,
            'retention.sites."b.example" is -1; it must be a whole number, from 0 to 36500',
        ),
        ('[retention.sites]\n\na = "1"\n', 3, 'retention.sites."a" is "1"; it must be a whole'),
        ("[retention.sites]\na.example = 1\n", 2, 'retention.sites."a" is'),
        ("[retention]\nsites = 30\n", 2, "retention.sites is 30; it must be a table of whole"),
        ('[server]\ndata = ""\n', 2, 'server.data is ""; it must be a path'),
        ('[tracker]\nevent_paths = ["api"]\n', 2, 'one or more paths that start with "/"'),
        ("[buffer]\nflush_events = 200000\n", 2, "must not exceed buffer.capacity_events (100000)"),
        ("[buffer]\ncapacity_events = 5\n", 2, "buffer.flush_events (10000) must not exceed"),
    ],
)
def test_what_cannot_be_right_stops_with_its_line_and_what_would_be(
    tmp_path: Path, text: str, line: int, right: str
) -> None:
    path = written(tmp_path, text)
    detail = refusal(path, {})
    assert detail.startswith(f"{path}, line {line}: ")
    assert right in detail


def test_what_is_not_toml_stops_with_its_line(tmp_path: Path) -> None:
    detail = refusal(written(tmp_path, "[server]\nport = \n"), {})
    assert "not TOML" in detail
    assert "line 2" in detail


def test_a_file_that_is_not_there_or_not_text_stops(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "none.toml", {})
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refusal(path, {})


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [
        ("MALLARD_SERVER_PROT", "1", "did you mean MALLARD_SERVER_PORT?"),
        ("MALLARD_PRIVACY_SECRET", "sixteen letters!", "unknown variable MALLARD_PRIVACY_SECRET"),
        ("MALLARD_SERVER_PORT", "many", 'server.port is "many"; it must be a whole number'),
        ("MALLARD_SERVER_PORT", "-1", "from 0 to 65535"),
        ("MALLARD_INGEST_FILTER_BOTS", "yes", "it must be true or false"),
        ("MALLARD_RETENTION_SITES", "a.example", "it must be a table of whole numbers"),
        ("MALLARD_RETENTION_SITES", "=3", "retention.sites"),
        ("MALLARD_RETENTION_SITES", "a.example=x", "it must be a table of whole numbers"),
        ("MALLARD_RETENTION_SITES", "a.example=-1", "from 0 to 36500"),
        ("MALLARD_BUFFER_DURABILITY", "sync", 'one of "fsync", "os", "memory"'),
        ("MALLARD_BUFFER_FLUSH_INTERVAL_SECONDS", "inf", "from 0.01 to 86400"),
    ],
)
def test_a_wrong_variable_stops_with_its_name(name: str, text: str, right: str) -> None:
    detail = refusal(None, {name: text})
    assert name in detail
    assert right in detail


def test_a_wrong_flag_stops_with_its_name() -> None:
    assert refusal(None, {}, port="x").startswith("--port: ")


def test_a_short_secret_is_refused_where_nothing_else_keeps_addresses_apart_and_not_shown() -> None:
    short = {"MALLARD_SECRET": "hunter2"}
    assert load(None, short, {}).config.privacy.secret == "hunter2"  # the day's salt is random
    detail = refusal(None, short | {"MALLARD_PRIVACY_VISITOR_SALT": "derived"})
    assert detail.startswith("MALLARD_SECRET: ")
    assert "at least 16 characters" in detail
    assert "hunter2" not in detail


def test_a_rooms_error_about_a_setting_gets_the_place_it_was_set(tmp_path: Path) -> None:
    path = written(tmp_path, '[proxy]\ntrusted = ["nobody"]\n')
    error = ConfigError("proxy.trusted knows no preset nobody.", field="proxy.trusted")
    located = load(path, {}, {}).located(error)
    assert located.detail == f"{path}, line 2: proxy.trusted knows no preset nobody."
    assert load(None, {}, {}).located(error) is error
