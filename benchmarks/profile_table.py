"""Puts the shares of a training's profile into docs/speed.md.

    tenfold profile cifar10 --recipe quick --out profile-quick
    python benchmarks/profile_table.py profile-quick/profile.json …

The page has a place for each recipe: <!-- profile-quick:start -->.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pages

PAGE = pages.ROOT / "docs" / "speed.md"
LEAST = 0.0005  # a smaller share would be shown as 0.0 %


def rows(profile: dict[str, Any]) -> list[tuple[str, float]]:
    """Shares of a step by what takes them, the largest first; they add up to 1. What the device computes is told by
    kinds of operations, all else by parts."""
    whole = sum(part["seconds"] for part in profile["parts"])
    found = [(cost["name"], cost["seconds"] / whole) for cost in profile["kinds"]]
    found += [(part["name"], part["share"]) for part in profile["parts"] if part["key"] != "device"]
    return sorted((row for row in found if row[1] >= LEAST), key=lambda row: -row[1])


def markdown(profile: dict[str, Any]) -> str:
    name, version = profile["computed_by"], profile["versions"].get(profile["computed_by"], "")
    size = f"{profile['units']} steps of {profile['images']} images of {profile['pixels']} pixels"
    pace = (
        f"{1000 * profile['profiled']:.1f} ms a step with the profiler on, {1000 * profile['seconds']:.1f} ms without"
    )
    where = f"{profile['device_label']}, {profile['precision']}, {name} {version}"
    head = f"{profile['recipe']['name']}, {where}: {size}, {pace}."
    table = ["| what | share of a step |", "| --- | --- |"]
    table += [f"| {what} | {100 * share:.1f} % |" for what, share in rows(profile)]
    return "\n".join([head, "", *table, *(f"\n{note}" for note in profile["notes"])]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profiles", nargs="+", type=Path, metavar="PROFILE.json")
    for path in parser.parse_args().profiles:
        profile = json.loads(path.read_text(encoding="utf-8"))
        if profile.get("format") != "tenfold-profile" or profile.get("kind") != "training":
            raise SystemExit(f"{path} is no profile of a training, as tenfold profile DATA leaves it.")
        pages.put(PAGE, f"profile-{profile['recipe']['name']}", f"\n{markdown(profile)}")


if __name__ == "__main__":
    main()
