"""``make bench``: the same work by persistq, by the bare drivers and by the peers, side by side in one run."""

import argparse
import json
import os
import platform
import signal
import sys
from datetime import UTC, datetime
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
    print(_heading(saved) + "\n\n" + report.tables(chosen, saved["cases"]))
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
            saved["cases"][case.name] = {**found.__dict__, "quick": options.quick}
            saved["versions"].update(runner.versions)
            saved["machine"] = _machine(options)
            if options.save:
                options.save.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    finally:
        runner.close()


def _with(case: Case, jobs: int | None) -> Case:
    if jobs is None:
        return case
    fields = {name: getattr(case, name) for name in Case.__dataclass_fields__}
    return Case(**{**fields, "work": {**case.work, "jobs": jobs}})


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "day": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite_module().sqlite_version,
        "runs": options.runs,
    }


def _heading(saved: dict[str, Any]) -> str:
    """Say on what the figures were taken."""
    machine, versions = saved.get("machine", {}), saved["versions"]
    syncs = sorted(case["fsync"] for case in saved["cases"].values() if case.get("fsync")) or [0.0]
    software = [f"Python {machine.get('python')}", f"SQLite {machine.get('sqlite')}"]
    software += [versions[name] for name in SERVERS if name in versions]
    peers = [f"{name} {version}" for name, version in sorted(versions.items()) if name not in SERVERS]
    lines = [
        f"Taken on {machine.get('day')}, {machine.get('cores')} cores, {machine.get('system')}: {', '.join(software)}.",
        f"A 4 KiB fsync took {syncs[len(syncs) // 2]:.2f} ms ({syncs[0]:.2f} to {syncs[-1]:.2f} over the run).",
        f"Medians of {machine.get('runs')} runs by turns, of fewer where a run takes a minute.",
        "In brackets: persistq divided by that column.",
    ]
    if peers:
        lines.append(f"Peers: {', '.join(peers)}.")
    return "\n".join(lines)


def _publish(saved: dict[str, Any]) -> None:
    """Write the tables and the pictures into the docs."""
    names = pictures.write(CASES, saved["cases"], IMAGES)
    text = report.tables(CASES, saved["cases"])
    for group, name in names.items():
        text = text.replace(f"### {group}\n", f"### {group}\n\n![{group}](img/{name})\n", 1)
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{_heading(saved)}\n\n{text}\n\n{END}{after}", encoding="utf-8")


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
    parser.add_argument("--publish", action="store_true", help="write tables and pictures into docs/")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--python", action="append", default=[], metavar="PATH", help="an interpreter for peers")
    parser.add_argument("--postgres", metavar="URL", help="this server instead of a private one")
    parser.add_argument("--mariadb", metavar="URL", help="this server instead of a private one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
