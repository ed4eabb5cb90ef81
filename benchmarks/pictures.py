"""One picture for each group of cases; one for all growth of a database."""

import re
from collections.abc import Iterable
from pathlib import Path

from .cases import OURS, Case
from .report import Results, median
from .svg import Bar, Panel, draw


def write(cases: Iterable[Case], results: Results, folder: Path) -> dict[str, str]:
    """Draw every group that has results; return the files' names by the group to stand at."""
    groups: dict[str, list[Panel]] = {}
    first: dict[str, str] = {}
    for case in cases:
        if case.name not in results:
            continue
        metric = case.metrics[0]
        found = [(side.name, median(results, case, side.name, metric.key)) for side in case.sides]
        bars = [
            Bar(name, value, f"{value:,.{metric.digits}f}")
            for name, value in found
            if value is not None and (case.growth or not name.startswith(f"{OURS}, "))
        ]
        if bars:
            title = case.group if case.growth else _title(case)
            picture = f"{case.server} growth" if case.growth else case.group
            first.setdefault(picture, case.group)
            groups.setdefault(picture, []).append(Panel(title, bars))
    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for picture, panels in groups.items():
        name = re.sub(r"[^a-z0-9]+", "-", picture.lower()).strip("-") + ".svg"
        (folder / name).write_text(draw(picture, panels), encoding="utf-8")
        names[first[picture]] = name
    return names


def _title(case: Case) -> str:
    metric = case.metrics[0]
    return case.title.replace("`", "") + (f": {metric.title}" if metric.title else "")
