"""Addresses and where they lie, over small databases made here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from mallard.errors import StorageError
from mallard.ingest.geo import NOWHERE, Place, Places

BERLIN: dict[str, Any] = {
    "country": {"iso_code": "DE"},
    "subdivisions": [{"iso_code": "BE", "names": {"en": "Land Berlin", "de": "Berlin"}}],
    "city": {"names": {"en": "Berlin", "de": "Berlin"}},
}
# DB-IP's free files have names of regions, and no codes.
OHIO: dict[str, Any] = {
    "country": {"iso_code": "US"},
    "subdivisions": [{"names": {"en": "Ohio"}}],
    "city": {"names": {"en": "Dublin"}},
}


def write(path: Path, places: dict[str, dict[str, Any]], kind: str = "GeoLite2-City") -> None:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type=kind)
    for network, record in places.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "city.mmdb"
    write(path, {"203.0.113.0/24": BERLIN, "2001:db8::/32": OHIO})
    return path


def test_an_address_has_country_region_and_city(database: Path) -> None:
    places = Places(database)
    assert places.place("203.0.113.7") == Place("DE", "DE-BE", "Berlin")
    assert places.place("2001:db8::1") == Place("US", "Ohio", "Dublin")


@pytest.mark.parametrize(
    "address", ["198.51.100.1", "::1", "unknown", "", "203.0.113.7:80", "\x00\ud800", None]
)
def test_what_the_database_does_not_know_is_nowhere(database: Path, address: str | None) -> None:
    assert Places(database).place(address) == NOWHERE


def test_without_a_database_everybody_is_nowhere() -> None:
    places = Places(None)
    assert places.place("203.0.113.7") == NOWHERE
    assert places.reload_if_changed() is False


def test_a_country_database_knows_countries(tmp_path: Path) -> None:
    path = tmp_path / "country.mmdb"
    write(path, {"203.0.113.0/24": {"country": {"iso_code": "FR"}}}, "GeoLite2-Country")
    assert Places(path).place("203.0.113.7") == Place("FR", None, None)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"country": "DE", "city": ["x"], "subdivisions": {}},
        {"country": {"iso_code": 49}, "subdivisions": []},
        {"subdivisions": ["x"], "city": {"names": "Berlin"}},
    ],
)
def test_a_record_of_another_shape_says_nothing(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "odd.mmdb"
    write(path, {"203.0.113.0/24": record})
    assert Places(path).place("203.0.113.7") == NOWHERE


def test_a_new_file_is_read_without_a_restart(database: Path) -> None:
    places = Places(database)
    assert places.reload_if_changed() is False
    new = database.with_name("new.mmdb")
    write(new, {"203.0.113.0/24": OHIO})
    new.replace(database)
    assert places.place("203.0.113.7").city == "Berlin"
    assert places.reload_if_changed() is True
    assert places.place("203.0.113.7").city == "Dublin"
    assert places.reload_if_changed() is False


def test_a_file_that_is_overwritten_in_place_does_not_disturb_the_reader(database: Path) -> None:
    places = Places(database)
    os.truncate(database, 0)
    assert places.place("203.0.113.7").city == "Berlin"


@pytest.mark.parametrize("keep", [0, 10, 100, 400])
def test_a_broken_replacement_is_told_once_and_the_old_one_stays(database: Path, keep: int) -> None:
    places = Places(database)
    os.truncate(database, keep)
    with pytest.raises(StorageError, match="stays in use"):
        places.reload_if_changed()
    assert places.reload_if_changed() is False
    assert places.place("203.0.113.7").city == "Berlin"


def test_a_file_that_goes_and_comes_back_is_read_again(database: Path) -> None:
    places = Places(database)
    away = database.with_name("away")
    database.rename(away)
    with pytest.raises(StorageError, match="stays in use"):
        places.reload_if_changed()
    assert places.reload_if_changed() is False
    away.rename(database)
    assert places.reload_if_changed() is True
    assert places.place("203.0.113.7").city == "Berlin"


def test_a_named_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"geo\.database"):
        Places(tmp_path / "missing.mmdb")
    (tmp_path / "text.mmdb").write_text("no database")
    with pytest.raises(StorageError, match=r"geo\.database"):
        Places(tmp_path / "text.mmdb")


def test_every_flipped_byte_is_an_answer_or_nowhere(database: Path, tmp_path: Path) -> None:
    whole = database.read_bytes()
    damaged = tmp_path / "damaged.mmdb"
    for position in range(0, len(whole), 7):
        content = bytearray(whole)
        content[position] ^= 0xFF
        damaged.write_bytes(content)
        try:
            places = Places(damaged)
        except StorageError:
            continue
        assert isinstance(places.place("203.0.113.7"), Place)
