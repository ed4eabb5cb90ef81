"""The files of docs/deploy: what they start exists, and nobody is killed before a consumer's grace is over."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.generated import ROOT
from support.servers import find_program

from persistq import Settings

DEPLOY = ROOT / "docs" / "deploy"
GRACE = Settings.model_fields["queue_grace_seconds"].default


def unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / name)
    return parser


@pytest.mark.parametrize("name", ["persistq-consumer@.service", "persistq-maintenance.service"])
def test_systemd_takes_the_unit(name: str, tmp_path: Path) -> None:
    text = (DEPLOY / name).read_text()
    # The programs and the user of the example are not on this machine.
    (tmp_path / name).write_text(re.sub(r"/srv/queue/\.venv/bin/\w+", "/bin/true", text))
    analyze = find_program("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    done = subprocess.run([analyze, "verify", tmp_path / name], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "name"), [(["hadolint"], "Dockerfile"), (["kubernetes-validate", "--strict"], "kubernetes.yaml")]
)
def test_a_validator_takes_the_file(command: list[str], name: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if shutil.which(command[0], path=path) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(
        [*command, DEPLOY / name], env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_consumer_is_killed_before_its_grace_is_over() -> None:
    assert float(unit("persistq-consumer@.service")["Service"]["TimeoutStopSec"]) > GRACE
    first = re.search(r"terminationGracePeriodSeconds: (\d+)", (DEPLOY / "kubernetes.yaml").read_text())
    assert first is not None
    assert float(first[1]) > GRACE
    stop = re.search(r"docker stop --time (\d+)", (DEPLOY / "Dockerfile").read_text())
    assert stop is not None
    assert float(stop[1]) > GRACE


@pytest.mark.parametrize("name", sorted(path.name for path in DEPLOY.iterdir()))
def test_what_a_file_starts_exists_and_every_variable_is_known(name: str) -> None:
    text = (DEPLOY / name).read_text()
    modules = set(re.findall(r"persistq\.[a-z]+(?:\.[a-z]+)?(?=[\"\s])", text))
    for module in modules - {"persistq.metrics"}:
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, timeout=60)
        assert done.returncode == 0, module
    known = {field.upper() for field in Settings.model_fields}
    assert set(re.findall(r"QUEUE_[A-Z_]+", text)) <= known
