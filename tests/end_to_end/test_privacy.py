"""Nothing personal is on disk or in a log: every byte is searched for marked visitors."""

from __future__ import annotations

import base64
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from urllib.parse import quote

import httpx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tests.end_to_end.server import RunningServer
from tests.waiting import until

ADDRESSES = ("203.0.113.77", "198.51.100.213", "2001:db8::dead:beef:7", "2001:db8:5:6:7:8:9:abcd")
# The words that mark what must not be kept, and, for the search itself, one that is kept.
MARK = "zqxmark"
KEPT = "zqxkept"
AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    f"Chrome/141.0.7390.{{}} Safari/537.36 {MARK}-agent/7.31"
)
BOT = f"Mozilla/5.0 (compatible; Googlebot/2.1; {MARK}-bot)"
QUERY = (
    f"{MARK}-key={MARK}-value&gclid={MARK}-click&fbclid={MARK}-facebook&email={MARK}%40a.example"
)
PAGE = f"https://{MARK}-user:{MARK}-password@example.com/{KEPT}/page?{QUERY}#{MARK}-fragment"
REFERRER = f"https://referrer.example/from?{QUERY}#{MARK}"
SETTINGS = {
    "proxy.trusted": "loopback",
    "log.level": "debug",
    "ingest.rate_limit_per_site": "200",
    # Events stay in the log until a test lets them out.
    "buffer.flush_events": "100000",
    "buffer.flush_interval_seconds": "3600",
}


def needles() -> dict[str, bytes]:
    """Return what must be nowhere, in every form that somebody could still read."""
    found = {"a mark": MARK.encode()}
    for address in map(ip_address, ADDRESSES):
        packed = address.packed
        found |= {
            f"{address} as text": str(address).encode(),
            f"{address} in full": address.exploded.encode(),
            f"{address} packed": packed,
            f"{address} packed, little end first": packed[::-1],
            f"{address} in hexadecimal": packed.hex().encode(),
            f"{address} as a number": str(int(address)).encode(),
            f"{address} in base64": base64.b64encode(packed).rstrip(b"="),
        }
        if isinstance(address, IPv6Address):
            found[f"{address}, its host's half"] = packed[8:]
        else:
            mapped = IPv6Address(f"::ffff:{address}")
            found[f"{address} in IPv6"] = str(mapped).encode()
    return found


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield everything below a folder: raw bytes, and what compressed or paged files hold."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = str(path.relative_to(folder))
        yield name, str(path).encode()
        yield name, path.read_bytes()
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                table = file.read(use_threads=False)
            yield name, repr(table.to_pylist()).encode()
            yield name, b"".join(_memory(table))
        elif path.suffix == ".db":
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                yield name, "\n".join(database.iterdump()).encode()
            database.close()


def _memory(table: pa.Table) -> Iterator[bytes]:
    """Yield each column as it lies in memory, numbers in binary."""
    for column in table.columns:
        for chunk in column.chunks:
            yield from (buffer.to_pybytes() for buffer in chunk.buffers() if buffer is not None)


def findings(folder: Path, logs: str) -> list[str]:
    """Return what of a visitor is in a data folder or in what the server printed."""
    wanted = {what: needle.lower() for what, needle in needles().items()}
    return [
        f"{what} is in {name}"
        for name, content in [*contents(folder), ("the server's log", logs.encode())]
        for what, needle in wanted.items()
        if needle in content.lower()
    ]


def holders(folder: Path) -> set[str]:
    """Return the kinds of files in which the search finds what is kept on purpose."""
    return {Path(name).suffix for name, content in contents(folder) if KEPT.encode() in content}


class Visits:
    """Marked visitors that do everything a visitor can do to a server."""

    def __init__(self, server: RunningServer) -> None:
        self._url = server.url

    def send(
        self,
        address: str = ADDRESSES[0],
        *,
        door: str = "/api/event",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        **fields: object,
    ) -> int:
        """Send an event and return the status; fields replace those of an honest one."""
        document = {"d": "example.com", "n": "pageview", "u": PAGE, "r": REFERRER, **fields}
        body = {"json": document if door == "/api/event" else [document]}
        answer = httpx.post(
            f"{self._url}{door}?{QUERY}",
            headers={**self.headers(address), **(headers or {})},
            **(body if content is None else {"content": content}),
        )
        return answer.status_code

    def headers(self, address: str) -> dict[str, str]:
        """Return what a browser behind a proxy sends, and everything else that could tell."""
        return {
            "User-Agent": AGENT.format(ADDRESSES.index(address)),
            "X-Forwarded-For": f"{ADDRESSES[1]}, {address}",
            "X-Real-IP": address,
            "Forwarded": f'for="[{address}]"',
            "Cookie": f"session={MARK}-cookie",
            "Authorization": f"Bearer {MARK}-token",
            "Referer": PAGE,
            "Sec-CH-UA": f'"Chromium";v="141", "{MARK}-brand";v="9"',
            "Sec-CH-UA-Platform-Version": f'"{MARK}"',
            "Accept-Language": f"en-{MARK[:5]},{MARK}",
        }

    def all(self) -> None:
        """Visit, and fail in each way that a stranger can cause."""
        for address in ADDRESSES:
            assert self.send(address) == 202
            assert self.send(address, door="/api/event/batch") == 202
            assert self.send(address, n=KEPT, p={"plan": KEPT}, headers={"Sec-GPC": "1"}) == 202
            pixel = f"{self._url}/api/event?d=example.com&u={quote(PAGE)}&r={quote(REFERRER)}"
            assert httpx.get(pixel, headers=self.headers(address)).status_code == 200
        assert self.send(headers={"User-Agent": BOT}) == 202
        assert self.send(headers={"Sec-Purpose": f"prefetch;{MARK}"}) == 202
        assert self.send(headers={"X-Debug-Request": "true"}) == 200
        assert self.send(headers={"Content-Encoding": MARK}) == 415
        assert self.send(headers={"Content-Encoding": "gzip"}) == 400
        assert self.send(d=f"{MARK}/../x") == 400
        assert self.send(u=None) == 422
        assert self.send(w=MARK) == 400
        assert self.send(p=f'{{"{MARK}": ') == 400
        assert self.send(content=f'{{"d": "{MARK}'.encode()) == 400
        assert self.send(content=f'{{"{MARK}": "\\ud800"}}'.encode()) == 400
        assert self.send(content=MARK.encode() * 10_000) == 413
        too_many = orjson.dumps([{"d": "limited.example", "n": KEPT, "u": PAGE}] * 500)
        # A full bucket lets one batch pass, whatever its size.
        assert self.send(door="/api/event/batch", content=too_many) == 202
        assert self.send(door="/api/event/batch", content=too_many) == 429
        for path in (f"/{MARK}?{QUERY}", f"/js/{MARK}.js?{QUERY}", f"/health/ready?{QUERY}"):
            httpx.get(self._url + path, headers=self.headers(ADDRESSES[2]))


def test_no_address_agent_or_query_string_of_a_visitor_is_on_disk_or_in_a_log(
    tmp_path: Path,
) -> None:
    with RunningServer(tmp_path, SETTINGS) as server:
        Visits(server).all()
        copy = tmp_path / "copy"
        shutil.copytree(server.data, copy)
        assert holders(copy) == {".wal"}
        assert findings(copy, server.logs) == []

        server.kill9()
        assert findings(server.data, server.logs) == []
        server.restart()
        Visits(server).send()
        assert server.terminate() == 0
        assert holders(server.data) == {".parquet"}
        assert findings(server.data, server.logs) == []


def test_a_failing_disk_makes_the_log_say_so_and_nothing_of_a_visitor(tmp_path: Path) -> None:
    quick = {**SETTINGS, "buffer.flush_interval_seconds": "0.05", "buffer.segment_bytes": "4096"}
    with RunningServer(tmp_path, quick) as server:
        visits = Visits(server)
        recent, log = server.data / "recent", server.data / "wal"
        recent.rename(tmp_path / "recent away")
        assert visits.send() == 202
        until(lambda: "events stay in the log for now" in server.logs, "a flush fails")
        log.rename(tmp_path / "log away")
        refused = [visits.send(d=f"{number}.example", u=PAGE) for number in range(40)]
        assert 503 in refused
        assert "the log takes no events" in server.logs
        assert findings(tmp_path, server.logs) == []


def test_the_search_finds_each_thing_that_it_looks_for(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    numbers = pa.array([int.from_bytes(b"\0" * 4 + ip_address(ADDRESSES[0]).packed)], pa.int64())
    texts = pa.array([f"{MARK} {ADDRESSES[2]}"])
    pq.write_table(pa.table({"n": numbers, "t": texts}), folder / "a.parquet", compression="zstd")
    with sqlite3.connect(folder / "b.db") as database:
        database.execute("CREATE TABLE t AS SELECT ? AS x", (ip_address(ADDRESSES[3]).packed,))
    database.close()
    (folder / MARK).touch()
    found = findings(folder, f"a visit from {ADDRESSES[1]}")
    assert {re.sub(r" as .*| packed.*", "", line) for line in found} >= {"a mark is in a.parquet"}
    for line in (
        f"{ADDRESSES[0]} packed, little end first is in a.parquet",
        f"{ADDRESSES[2]} as text is in a.parquet",
        f"{ADDRESSES[3]} packed is in b.db",
        f"a mark is in {MARK}",
        f"{ADDRESSES[1]} as text is in the server's log",
    ):
        assert line in found
