"""Every command and every sample of README and docs works, in the order in which a reader meets them."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import run_in
from support.generated import ROOT

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/operating.md",
    "docs/observability.md",
    "docs/retries.md",
    "docs/transactions.md",
    "docs/batches.md",
]
# Proven by whoever runs this suite: they set it up, run it, and run the checks.
ELSEWHERE = {"make test", "make check", "make run"}
PLAIN = re.compile(r"persistq [\w .:/\"=-]+")


def blocks(page: str) -> list[tuple[str, str]]:
    """Return a page's code blocks as (language, text)."""
    return re.findall(
        r"^```(sh|python)\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project as a clone would have it, with our virtual environment."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv/bin").parent.mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    return tmp_path


def type_command(command: str, project: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[bytes]":
    """Type it at a shell; what a shell would only pass on to ``persistq`` needs none."""
    if PLAIN.fullmatch(command):
        return run_in(project, shlex.split(command)[1:], environment)
    return subprocess.run(["bash", "-c", command], cwd=project, env=environment, capture_output=True, timeout=120)


@pytest.mark.timeout(900)  # each command is a process
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_works(page: str, project: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(project)}
    ran = 0
    try:
        for language, text in blocks(page):
            if language == "python":
                name = re.match(r"# (\w+\.py)\n", text)
                script = project / (name[1] if name else "sample.py")
                script.write_text(text, encoding="utf-8")
                commands = [f"{sys.executable} {script.name}"]
            else:
                commands = [line.partition(" #")[0].strip() for line in text.splitlines()]
            for command in filter(None, commands):
                if command in ELSEWHERE:
                    continue
                done = type_command(command, project, environment)
                assert done.returncode == 0, f"{command}\n{done.stdout!r}\n{done.stderr!r}"
                ran += 1
    finally:
        if (project / "run/supervisord.pid").exists():
            subprocess.run(["supervisorctl", "shutdown"], cwd=project, env=environment, check=False)
    assert ran or page == "CONTRIBUTING.md"


@pytest.mark.parametrize(
    "page", sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
)
def test_a_page_links_only_to_what_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


def test_every_command_is_documented() -> None:
    from persistq.admin.commands import COMMANDS

    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    missing = [name for name in COMMANDS if f"persistq {name}" not in text]
    assert not missing
