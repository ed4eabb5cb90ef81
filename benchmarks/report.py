"""Markdown tables of medians and ratios."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from .cases import OURS, Case, Metric, Target

Results = Mapping[str, Mapping[str, Any]]
"""By the name of a case: its ``figures`` and its ``failed``."""


def groups(cases: Iterable[Case], results: Results) -> dict[str, list[Case]]:
    """Return the cases that have results, by the name of their group."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        if case.name in results:
            found.setdefault(case.group, []).append(case)
    return found


def median(results: Results, case: Case, side: str, metric: str = "rate") -> float | None:
    """Return the median of a side's runs, None when it has none."""
    runs = results[case.name]["figures"].get(side, {}).get(metric)
    return statistics.median(runs) if runs else None


def tables(cases: list[Case], results: Results) -> str:
    """Return the tables of one group."""
    parts = [_growth(case, results) for case in cases if case.growth] or [_compared(cases, results)]
    if targets := _targets(cases, results):
        parts.append(targets)
    parts += [lines for lines in (_repeated(cases, results), _absent(cases, results)) if lines]
    return "\n\n".join(parts)


def _compared(cases: list[Case], results: Results) -> str:
    """Return a table with a row for each figure and a column for each side."""
    columns: list[str] = []
    for case in cases:
        columns += [side.name for side in case.sides if side.name not in columns]
    columns = [name for name in columns if _measured(name, cases, results) and not name.startswith(f"{OURS}, ")]
    lines = [f"| | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for case in cases:
        for metric in case.metrics:
            cells = [_cell(results, case, name, metric) for name in columns]
            if any(cells):
                lines.append(f"| {_title(case, metric)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(results: Results, case: Case, name: str, metric: Metric) -> str:
    value = median(results, case, name, metric.key)
    if value is None:
        return ""
    mine = median(results, case, OURS, metric.key)
    text = f"{value:,.{metric.digits}f}"
    return text if name == OURS or not mine or not value else f"{text} ({_ratio(mine / value)})"


def _growth(case: Case, results: Results) -> str:
    labels = list(dict.fromkeys(side.label for side in case.sides))
    counts = list(dict.fromkeys(side.work["rows"] for side in case.sides))
    lines = [f"| {case.title} | {' | '.join(labels)} |", "| ---: |" + " ---: |" * len(labels)]
    for rows in counts:
        cells = []
        for label in labels:
            empty = median(results, case, f"{label} @ 0")
            value = median(results, case, f"{label} @ {rows:,}")
            cells.append("" if value is None else f"{value:,.0f}" + (f" ({_ratio(value / empty)})" if empty else ""))
        if any(cells):
            lines.append(f"| {rows:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _targets(cases: list[Case], results: Results) -> str:
    lines = [
        f"| {_title(case, _metric(case, target))}: {_what(target)} | {_asked(target)} | {_ratio(value)} | {verdict} |"
        for case in cases
        for target in case.targets
        if (value := measured(case, target, results)) is not None
        for verdict in ["yes" if met(target, value) else "**no**"]
    ]
    return (
        "\n".join(["| what is asked | bound | measured | met |", "| --- | ---: | ---: | --- |", *lines])
        if lines
        else ""
    )


def measured(case: Case, target: Target, results: Results) -> float | None:
    """Return what is to be compared with the bound."""
    value = median(results, case, target.ours, target.metric)
    if target.theirs is None or value is None:
        return value
    theirs = median(results, case, target.theirs, target.metric)
    return value / theirs if theirs else None


def met(target: Target, value: float) -> bool:
    """Return whether the target is met."""
    return value <= target.bound if target.at_most else value >= target.bound


def _what(target: Target) -> str:
    return f"{target.ours} / {target.theirs}" if target.theirs else f"{target.ours}, {target.unit}"


def _asked(target: Target) -> str:
    return f"{'≤' if target.at_most else '≥'} {target.bound:,g}"


def _metric(case: Case, target: Target) -> Metric:
    return next(metric for metric in case.metrics if metric.key == target.metric)


def _title(case: Case, metric: Metric) -> str:
    return f"{case.title}: {metric.title}" if metric.title else case.title


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _measured(name: str, cases: list[Case], results: Results) -> bool:
    return any(results[case.name]["figures"].get(name) for case in cases)


def _repeated(cases: list[Case], results: Results) -> str:
    """Return a line for each side that performed jobs twice though nobody died."""
    lines = []
    for case in cases:
        for name, figures in results[case.name]["figures"].items():
            if most := max(figures.get("repeated", [0])):
                lines.append(f"- {name} performed up to {most:,} jobs twice ({case.title}).")
    return "\n".join(lines)


def _absent(cases: list[Case], results: Results) -> str:
    """Return a line for each side that could not take part."""
    why: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        for name, reason in results[case.name]["failed"].items():
            why.setdefault((name, reason.splitlines()[-1]), []).append(case.title)
    return "\n".join(
        f"- Not measured: {name} ({', '.join(titles)}): {reason}" for (name, reason), titles in why.items()
    )
