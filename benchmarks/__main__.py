"""``make bench``: the same work by persistq, by the bare drivers and by the peers, side by side in one run."""

import argparse
import json
import os
import platform
import signal
import sys
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from . import batches, imports, mariadb, pictures, postgres, report, shards, sqlite
from .cases import Case
from .runner import Runner
from .sides.library import sqlite_module
from .venvs import ROOT

CASES = [*sqlite.CASES, *postgres.CASES, *mariadb.CASES, *batches.CASES, *shards.CASES, *imports.CASES]
PAGE = ROOT / "docs/performance.md"
IMAGES = ROOT / "docs/img"
SERVERS = ("postgres", "mariadb")
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"


def main() -> int:
    """Measure what was asked for and print the tables."""
    options = _parser().parse_args()
    options.runs = options.runs or (2 if options.quick else 5)
    chosen = _chosen(options.only)
    if options.list:
        print("\n".join(f"{case.name:40} {case.group}; {case.title}" for case in chosen))
        return 0
    saved = _load(options.save) if options.save else {"cases": {}, "versions": {}}
    if not options.report:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end
        _measure(chosen, options, saved)
    print(_page(_sections(chosen, saved)))
    if options.publish:
        _publish(saved)
    return 0


def _chosen(names: list[str]) -> list[Case]:
    """Return the cases of these names; a name that is no case's own means all that begin with it."""
    exact = {case.name for case in CASES} & set(names)
    begins = [name for name in names if name not in exact]
    return [
        case for case in CASES if not names or case.name in exact or any(case.name.startswith(name) for name in begins)
    ]


def _measure(chosen: list[Case], options: argparse.Namespace, saved: dict[str, Any]) -> None:
    runner = Runner(
        quick=options.quick,
        pythons=options.python,
        urls={"postgres": options.postgres, "mariadb": options.mariadb},
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    try:
        for number, case in enumerate(chosen, 1):
            print(f"{number}/{len(chosen)} {case.name}", file=sys.stderr, flush=True)
            found = runner.run(_with(case, options.jobs), options.runs)
            saved["cases"][case.name] = {**found.__dict__, "quick": options.quick, "machine": _machine()}
            saved["versions"].update(runner.versions)
            if options.save:
                options.save.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    finally:
        runner.close()


def _with(case: Case, jobs: int | None) -> Case:
    if jobs is None:
        return case
    fields = {name: getattr(case, name) for name in Case.__dataclass_fields__}
    return Case(**{**fields, "work": {**case.work, "jobs": jobs}})


def _machine() -> dict[str, Any]:
    return {
        "day": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite_module().sqlite_version,
    }


def _sections(cases: list[Case], saved: dict[str, Any]) -> dict[str, str]:
    """Return what there is to say of each group."""
    found = report.groups(cases, saved["cases"])
    return {group: f"{_stamp(members, saved)}\n\n{report.tables(members, saved['cases'])}"
            for group, members in found.items()}  # fmt: skip


def _stamp(cases: list[Case], saved: dict[str, Any]) -> str:
    """Say on what the figures of some cases were taken."""
    versions, taken = saved["versions"], [saved["cases"][case.name] for case in cases]
    machine = max((one["machine"] for one in taken), key=itemgetter("day"))
    days = sorted({one["machine"]["day"] for one in taken})
    syncs = sorted(one["fsync"] for one in taken)
    runs = sorted({len(rates) for one in taken for side in one["figures"].values() for rates in side.values()})
    software = [f"Python {machine['python']}", f"SQLite {machine['sqlite']}"]
    software += [versions[name] for name in SERVERS if name in versions and any(case.server == name for case in cases)]
    peers = {side.peer.name for case in cases for side in case.sides if side.peer} & versions.keys()
    lines = [
        f"Taken on {' and '.join(days)}, {machine['cores']} cores, {machine['system']}: {', '.join(software)}.",
        f"A 4 KiB fsync took {syncs[len(syncs) // 2]:.2f} ms ({syncs[0]:.2f} to {syncs[-1]:.2f} over the run).",
        f"Medians of {' to '.join(map(str, runs[:1] + runs[1:][-1:]))} runs by turns.",
        "In brackets: persistq divided by that column.",
    ]
    if peers:
        lines.append(f"Peers: {', '.join(f'{name} {versions[name]}' for name in sorted(peers))}.")
    return "\n".join(lines)


def _page(sections: dict[str, str]) -> str:
    return "\n\n".join(f"### {group}\n\n{text}" for group, text in sections.items())


def _publish(saved: dict[str, Any]) -> None:
    """Write the tables and the pictures into the docs. Groups of which nothing was saved stay as they are."""
    names = pictures.write(CASES, saved["cases"], IMAGES)
    new = _sections(CASES, saved)
    for group, name in names.items():
        new[group] = f"![{group}](img/{name})\n\n{new[group]}"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    old, _, after = rest.partition(END)
    all_ = _parted(old) | new
    ordered = {case.group: all_[case.group] for case in CASES if case.group in all_}
    PAGE.write_text(f"{before}{BEGIN}\n\n{_page(ordered)}\n\n{END}{after}", encoding="utf-8")


def _parted(text: str) -> dict[str, str]:
    """Return the sections of a text by their headings."""
    parts = [part.partition("\n") for part in f"\n{text}".split("\n### ")[1:]]
    return {heading: rest.strip() for heading, _, rest in parts}


def _load(path: Path) -> dict[str, Any]:
    """Return what a file holds already: cases measured again replace their old figures."""
    if not path.exists():
        return {"cases": {}, "versions": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="cases whose name begins so")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each side (5, with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="a quarter of the work, no table above 100,000 rows")
    parser.add_argument("--jobs", type=int, metavar="N", help="jobs a run, instead of each case's own")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the figures as JSON, beside those it has")
    parser.add_argument("--report", action="store_true", help="measure nothing, print what --save FILE holds")
    parser.add_argument("--publish", action="store_true", help="write what was measured or saved into docs/")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--python", action="append", default=[], metavar="PATH", help="an interpreter for peers")
    parser.add_argument("--postgres", metavar="URL", help="this server instead of a private one")
    parser.add_argument("--mariadb", metavar="URL", help="this server instead of a private one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
