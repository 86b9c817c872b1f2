"""The figures of a server over its rounds: medians with the lowest and the highest."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import latency
from servers import Server

Record = dict[str, Any]


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return {"median": statistics.median(known), "min": min(known), "max": max(known)} if known else None


def summarise(server: Server, records: Sequence[Record], told: dict[str, str]) -> dict[str, Any]:
    """A server's figures over its rounds: medians, lowest and highest, n."""
    mine = [r for r in records if r["server"] == server.name and not r["why"]]
    every = [x for r in mine for x in r["loads"]]
    return {
        "name": server.name,
        "label": server.label,
        "family": server.family,
        "n": len(mine),
        "failed": [r["why"] for r in records if r["server"] == server.name and r["why"]],
        "command": mine[-1]["command"] if mine else None,
        "versions": told,
        "ready_seconds": spread([r["ready_seconds"] for r in mine]),
        "stop_seconds": spread([r["stop_seconds"] for r in mine]),
        "agreement": mine[-1]["agreement"] if mine else None,
        "resident_bytes": max((x["server"]["resident_bytes"] or 0 for x in every), default=0) or None,
        "proportional_bytes": max((x["server"]["proportional_bytes"] or 0 for x in every), default=0) or None,
        "others_cores": max((x.get("others_cores", 0) for x in every), default=0),
        "steal_share": max((x.get("steal_share", 0) for x in every), default=0),
        "wrong": sum(x["wrong"] for x in every),
        "closed": {str(n): _loads([x for x in every if x["loop"] == "closed" and x["connections"] == n])
                   for n in sorted({x["connections"] for x in every if x["loop"] == "closed"})},
        "open": {f"{rate:g}": _loads([x for x in every if x["loop"] == "open" and x["rate"] == rate])
                 for rate in sorted({x["rate"] for x in every if x["loop"] == "open"})},
    }  # fmt: skip


def _loads(loads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same load in several rounds."""
    errors = {key: sum(x["errors"].get(key, 0) for x in loads) for x in loads for key in x["errors"]}
    statuses = {key: sum(x["by_status"].get(key, 0) for x in loads) for x in loads for key in x["by_status"]}
    return {
        "n": len(loads),
        "requests": sum(x["requests"] for x in loads),
        "by_status": dict(sorted(statuses.items())),
        "errors": errors,
        "requests_per_second": spread([x["requests_per_second"] for x in loads]),
        **{key: spread([x["latency_ms"][key] for x in loads]) for key in ("p50", "p90", "p99", "max")},
        "server_ms_per_request": spread(
            [1000 * x["server"]["cpu_seconds"] / x["requests"] for x in loads if x["server"]["cpu_seconds"] is not None]
        ),
        "client_cores": spread([x["client"]["cores"] for x in loads]),
        "late_ms_p99": spread([x["client"].get("late_ms_p99") for x in loads]),
        "kept_up": sum(latency.kept_up(x) for x in loads),
    }


def times(one: dict[str, Any], other: dict[str, Any], runs: Sequence[Record], connections: int
          ) -> dict[str, float] | None:  # fmt: skip
    """How many times as many requests a second ``one`` answers as ``other``, of the rounds that both have."""

    def rates(name: str) -> dict[int, float]:
        return {
            r["round"]: x["requests_per_second"]
            for r in runs if r["server"] == name and not r["why"]
            for x in r["loads"] if x["loop"] == "closed" and x["connections"] == connections
        }  # fmt: skip

    mine, theirs = rates(one["name"]), rates(other["name"])
    return spread([mine[r] / theirs[r] for r in sorted(mine.keys() & theirs.keys()) if theirs[r]])


def level(summary: dict[str, Any]) -> int:
    """The number of connections at which servers are compared: 32, or the most where it was not measured."""
    known: list[int] = summary["plan"]["connections"]
    return 32 if 32 in known else max(known)


def quoted(summary: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The servers that are shown, and those that give way to a faster form of the same."""
    at = str(level(summary))

    def rate(server: dict[str, Any]) -> float:
        return server["closed"][at]["requests_per_second"]["median"] if at in server["closed"] else 0.0

    shown, rest = [], []
    for server in (s for s in summary["servers"] if s["n"]):
        family = [s for s in summary["servers"] if s["n"] and s["family"] == server["family"]]
        best = not server["family"] or server is max(family, key=rate)
        (shown if best else rest).append(server)
    return shown, rest
