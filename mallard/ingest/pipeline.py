"""The one path behind every door: admit, enrich, commit.

Invariants: the events of one call are stored together, in one frame, or none of them is. An event
is accepted once the buffer says so, and not before. What is dropped is counted by site and reason;
what is refused is raised, and counted by the door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import ceil
from typing import Any, Literal, NamedTuple, Protocol

from mallard.clock import Clock, to_datetime
from mallard.errors import InvalidInput, MallardError, RateLimited
from mallard.event import Event, Line, unpack
from mallard.ingest.admission import ACCEPTED, Admission, Reason
from mallard.ingest.batch import Sent, document_of, read_sent
from mallard.ingest.payload import (
    BATCH_EVENTS_MAX,
    RawEvent,
    batch_from_json,
    read_event,
)
from mallard.ingest.sender import Sender
from mallard.telemetry import Telemetry

# Through which door an event came: the column `ingest_api`, and a label of `/metrics`.
Door = Literal["post", "pixel", "batch"]


class Outcome(NamedTuple):
    """What became of a request's events.

    accepted: how many were stored. dropped: why the others were not, without repeats.
    """

    accepted: int
    dropped: tuple[Reason, ...] = ()


_ONE_STORED = Outcome(1)  # what nearly every request comes to
_NONE_DROPPED: Sequence[tuple[RawEvent, Reason]] = ()
Settle = Callable[[Outcome | Exception], None]


class Enriches(Protocol):
    """What `enrichment.Enricher` does, as far as the path needs it."""

    def lines(
        self, raws: Iterable[RawEvent], sender: Sender, at_us: int, source: str, ingest_api: str
    ) -> list[Line]:
        """Return what is stored of a sender's raw events: a line for each of their sites."""

    def lines_of_batch(
        self,
        events: Iterable[Sent],
        read: Callable[[Sent], RawEvent | None],
        sender: Sender,
        at_us: int,
        source: str,
        ingest_api: str,
    ) -> list[Line] | None:
        """Do the same for events as they were sent; None if read gave None for one.

        Raises what read does, and InvalidInput for some that are to be read in another way.
        """


class Appends(Protocol):
    """What `buffer.Buffer` does, as far as the path needs it."""

    def submit(
        self, lines: Sequence[Line], received_at: int, settle: Callable[[Any], None]
    ) -> None:
        """Call settle once the events are durable, together, or with an Exception.

        Raises Overloaded.
        """

    async def await_room(self, count: int, *, again: bool = False) -> None:
        """Return when it is worth while to submit so many events; raises Overloaded."""


class Pipeline:
    """Takes raw events to the log."""

    def __init__(
        self,
        admission: Admission,
        enricher: Enriches,
        buffer: Appends,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._admission = admission
        self._enricher = enricher
        self._buffer = buffer
        self._clock = clock
        self._telemetry = telemetry

    async def await_room(self, *, again: bool = False) -> None:
        """Return when a batch would find room. Raises Overloaded when it does not soon.

        again: for who has waited already and did something since.
        """
        await self._buffer.await_room(BATCH_EVENTS_MAX, again=again)

    async def accept(self, raws: Sequence[RawEvent], sender: Sender, door: Door) -> Outcome:
        """Store what is admitted of a request's events, an event for each of its sites.

        Returns when they are durable. Raises Forbidden, RateLimited or Overloaded; then nothing
        was stored. The sites' rates are charged for admitted events alone.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.submit(raws, sender, door, partial(_resolve, future))
        return await future

    async def accept_batch(self, body: bytes, sender: Sender) -> Outcome:
        """Do what `accept` does with what `payload.batch_from_json` makes of a body.

        Raises what either raises.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._submit_batch(body, sender, partial(_resolve, future)):
            return await future
        # Something is unusual, dropped or refused: each event is asked what it is.
        return await self.accept(batch_from_json(body), sender, "batch")

    def _submit_batch(self, body: bytes, sender: Sender, settle: Settle) -> bool:
        """Do what `submit` does, and return True, with a batch that is as most are.

        Nothing of it stays here while it is on its way to the disk: what a thousand events take is
        let go of while it is still in the processor's cache, which is a tenth of the time.
        """
        if not self._admission.takes_all_of(sender):
            return False
        at_us = self._clock.now_ms() * 1000
        lines = self._lines_of_batch(body, sender, at_us)
        if lines is None:
            return False
        self._store(lines, at_us, _NONE_DROPPED, "batch", settle)
        return True

    def _lines_of_batch(self, body: bytes, sender: Sender, at_us: int) -> list[Line] | None:
        """Return the lines of a batch that is as usual and of which all is stored, else None."""
        events = read_sent(body)
        if events is None:
            return None

        def read(sent: Sent) -> RawEvent | None:
            raw = read_event(document_of(sent))
            return raw if self._admission.admits(raw) else None

        source = _source(sender, "batch")
        try:
            lines = self._enricher.lines_of_batch(events, read, sender, at_us, source, "batch")
        except InvalidInput:
            return None
        return None if lines is None or len(lines) > BATCH_EVENTS_MAX else lines

    def submit(self, raws: Sequence[RawEvent], sender: Sender, door: Door, settle: Settle) -> None:
        """Do what `accept` does, and call settle, now or later, when it is done.

        settle: gets the outcome, or the error that `accept` would raise once it had waited. What
        can be refused at once is raised.
        """
        verdicts = self._admission.verdicts(raws, sender)
        admitted, dropped = raws, _NONE_DROPPED
        if verdicts.count(ACCEPTED) < len(raws):
            judged = list(zip(raws, verdicts, strict=True))
            admitted = [raw for raw, verdict in judged if verdict is ACCEPTED]
            dropped = [(raw, verdict.reason) for raw, verdict in judged if verdict is not ACCEPTED]
            if not admitted:
                settle(self._outcome(0, dropped, door))
                return
        self._admission.charge(admitted)
        at_us = self._clock.now_ms() * 1000
        lines = self._enricher.lines(admitted, sender, at_us, _source(sender, door), door)
        self._store(lines, at_us, dropped, door, settle)

    def _store(
        self,
        lines: Sequence[Line],
        at_us: int,
        dropped: Sequence[tuple[RawEvent, Reason]],
        door: Door,
        settle: Settle,
    ) -> None:
        count = len(lines)

        def stored(result: object) -> None:
            if isinstance(result, Exception):
                settle(result)
            else:
                settle(self._outcome(count, dropped, door))

        self._buffer.submit(lines, at_us, stored)

    def _outcome(
        self, accepted: int, dropped: Sequence[tuple[RawEvent, Reason]], door: Door
    ) -> Outcome:
        """Count what became of a request's events, and return it."""
        if accepted:
            self._telemetry.accepted[door] += accepted
        if not dropped:
            return _ONE_STORED if accepted == 1 else Outcome(accepted)
        for raw, reason in dropped:
            for site in raw.sites:
                self._telemetry.drop(site, reason.value)
        return Outcome(accepted, tuple(dict.fromkeys(reason for _, reason in dropped)))

    def explain(self, raw: RawEvent, sender: Sender, door: Door) -> dict[str, Any]:
        """Return what `accept` would do with an event and why, and store and count nothing.

        Keys: verdict (accepted, dropped or refused), reason, detail, client_address, sites,
        events: what would be stored, an object for each site.
        """
        told: dict[str, Any] = {
            "client_address": sender.address,
            "sites": list(raw.sites),
            "events": [],
        }
        try:
            (verdict,) = self._admission.verdicts((raw,), sender)
            if verdict is not ACCEPTED:
                return _told("dropped", verdict.reason.value, verdict.detail) | told
            if wait := self._admission.wait_seconds([raw]):
                detail = "There are too many events for this site."
                raise RateLimited(detail, retry_after_seconds=ceil(wait))
            at_us, source = self._clock.now_ms() * 1000, _source(sender, door)
            lines = self._enricher.lines((raw,), sender, at_us, source, door)
            told["events"] = [readable(event) for event in unpack(b"\n".join(lines))]
        except MallardError as error:
            return _told("refused", error.code, error.detail) | told
        return _told("accepted", verdict.reason.value, verdict.detail) | told


def readable(event: Event) -> dict[str, Any]:
    """Return an event's known columns in the forms that APIs show: JSON can hold all of them."""
    shown = {name: value for name, value in event._asdict().items() if value is not None}
    for name in ("timestamp", "sent_at", "received_at"):
        if name in shown:
            shown[name] = to_datetime(shown[name]).isoformat(timespec="microseconds")
    if event.visitor_id is not None:
        shown["visitor_id"] = f"{event.visitor_id & (1 << 64) - 1:016x}"
    if event.revenue_amount is not None:
        shown["revenue_amount"] = str(event.revenue_amount)
    return shown


def _told(verdict: str, reason: str, detail: str) -> dict[str, Any]:
    return {"verdict": verdict, "reason": reason, "detail": detail}


def _source(sender: Sender, door: Door) -> str:
    """Return what kind of client sent it: only a browser sends an Origin."""
    if door == "pixel":
        return "Pixel"
    return "API" if sender.origin is None else "Snippet"


def _resolve(future: asyncio.Future[Outcome], result: Outcome | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
