"""What the command line asks of a server about erasure, as JSON in and out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mallard.jobs.erasure import Erasure
from mallard.jobs.reclassify import Limits, Proposal, Reclassification
from mallard.query.rules import Definition

CHANGES_MAX = 50  # lines of a proposal that are told; the rest is a number

Answer = Callable[[Mapping[str, Any]], object]


def answers(erasure: Erasure, reclassification: Reclassification) -> dict[str, Answer]:
    """Return what answers each request, by its name. A definition is `Definition.to_json`."""

    def preview(arguments: Mapping[str, Any]) -> object:
        found = erasure.preview(Definition.from_json(arguments["definition"]))
        counts = [[site_id, date, events] for (site_id, date), events in found.counts.items()]
        return {"counts": counts, "kept": [list(day) for day in found.kept]}

    def begin(arguments: Mapping[str, Any]) -> object:
        definition = Definition.from_json(arguments["definition"])
        return erasure.begin(definition, grace_seconds=arguments["grace_seconds"])

    def cancel(arguments: Mapping[str, Any]) -> object:
        erasure.cancel(arguments["rule"])
        return None

    def discard(arguments: Mapping[str, Any]) -> object:
        return erasure.discard(arguments["rule"])

    def status(_: Mapping[str, Any]) -> object:
        return {"active": erasure.status(), "receipts": erasure.receipts()}

    def propose(arguments: Mapping[str, Any]) -> object:
        ways: dict[str, Callable[[Limits], Proposal]] = {
            "sources": reclassification.sources,
            "spam": reclassification.spam,
            "bots": reclassification.bots,
        }
        proposal = ways[arguments["what"]](Limits(*arguments["limits"]))
        return {
            "definition": proposal.definition.to_json() if proposal.definition else None,
            "changes": proposal.changes[:CHANGES_MAX],
            "events": sum(events for _, events in proposal.changes),
            "left": proposal.left,
        }

    return {
        "erasure.preview": preview,
        "erasure.begin": begin,
        "erasure.cancel": cancel,
        "erasure.discard": discard,
        "erasure.status": status,
        "reclassify.propose": propose,
    }
