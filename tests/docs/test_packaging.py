"""What pyproject.toml says twice, it says alike."""

import tomllib

from support.generated import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def test_the_extra_all_is_every_extra_but_dev() -> None:
    assert EXTRAS["all"] == [need for name, needs in EXTRAS.items() if name not in ("all", "dev") for need in needs]


def test_what_poetry_installs_by_default_are_two_extras() -> None:
    assert PROJECT["dependency-groups"]["dev"] == EXTRAS["cli"] + EXTRAS["supervisor"]
    assert set(PROJECT["dependency-groups"]["dev"]) < set(EXTRAS["dev"])
