"""Virtual environments for the peers, made on first use below ``.bench/``."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .servers import Unavailable

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".bench"
NEWEST_FIRST = ("3.14", "3.13", "3.12", "3.11")


@dataclass(frozen=True)
class Peer:
    """A queue that is installed by its name."""

    name: str
    packages: tuple[str, ...]
    #: The oldest Python that its newest version runs on, when that is newer than ours.
    python: str = ""
    #: Whether an older version for our own Python will do.
    otherwise: bool = False


class Environments:
    """Makes each environment once and remembers what could not be installed."""

    def __init__(self, pythons: list[str]) -> None:
        self._pythons = pythons
        self._made: dict[Peer, str | Unavailable] = {}
        PLACE.mkdir(exist_ok=True)
        (PLACE / ".gitignore").write_text("*\n")

    def python(self, peer: Peer) -> str:
        """Return the interpreter that can import the peer.

        Raises:
            Unavailable: it cannot be installed here; the message says why.
        """
        if peer not in self._made:
            try:
                self._made[peer] = self._make(peer)
            except Unavailable as error:
                self._made[peer] = error
        found = self._made[peer]
        if isinstance(found, Unavailable):
            raise found
        return found

    def version(self, peer: Peer) -> str:
        """Return the version that is installed, and the Python when it is not ours."""
        name = peer.packages[0].partition("[")[0]
        script = (
            "import sys, importlib.metadata as m; "
            f"print(m.version({name!r}), 'Python %d.%d' % sys.version_info[:2], sep=', ')"
        )
        done = subprocess.run(  # noqa: S603
            [self.python(peer), "-c", script], check=True, capture_output=True, text=True
        )
        return done.stdout.strip().removesuffix(", Python {}.{}".format(*sys.version_info))

    def _make(self, peer: Peer) -> str:
        base = self._interpreter(peer)
        home = PLACE / "venvs" / f"{peer.name}-{base[1]}"
        python, ready = home / "bin/python", home / "ready"
        wanted = "\n".join(peer.packages)
        if ready.exists() and ready.read_text() == wanted:
            return str(python)
        print(f"installing {', '.join(peer.packages)} ...", file=sys.stderr)
        subprocess.run([base[0], "-m", "venv", "--clear", home], check=True)  # noqa: S603
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages]
        done = subprocess.run(install, capture_output=True, text=True, timeout=600, check=False)  # noqa: S603
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.lower().startswith("error")] or ["pip failed"]
            raise Unavailable(f"{' '.join(peer.packages)} cannot be installed on Python {base[1]}: {errors[-1][:120]}")
        ready.write_text(wanted)
        return str(python)

    def _interpreter(self, peer: Peer) -> tuple[str, str]:
        own = "{}.{}".format(*sys.version_info)
        if not peer.python or sys.version_info >= _parsed(peer.python):
            return sys.executable, own
        for version in NEWEST_FIRST:
            if _parsed(version) >= _parsed(peer.python) and (path := self._find(version)):
                return path, version
        if peer.otherwise:
            return sys.executable, own
        raise Unavailable(f"{peer.name} needs Python {peer.python}, which was not found; give --python PATH")

    def _find(self, version: str) -> str | None:
        candidates = [*self._pythons, shutil.which(f"python{version}"), *_pyenv()]
        return next((path for path in filter(None, candidates) if _version(path) == version), None)


def _parsed(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _version(path: str) -> str:
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run([path, "-c", script], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""


def _pyenv() -> list[str]:
    """Return the interpreters of pyenv, whose shims work for the selected version only."""
    program = shutil.which("pyenv")
    if not program:
        return []
    done = subprocess.run([program, "root"], capture_output=True, text=True, check=False)  # noqa: S603
    versions = Path(done.stdout.strip() or os.devnull) / "versions"
    return [str(path) for path in sorted(versions.glob("*/bin/python"), reverse=True)]
