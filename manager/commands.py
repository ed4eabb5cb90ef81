"""Every command, registered in the order of the help."""

from .registry import COMMANDS

from . import looking  # isort: skip
from . import choosing  # isort: skip
from . import steering  # isort: skip
from . import deciding  # isort: skip

__all__ = ["COMMANDS", "choosing", "deciding", "looking", "steering"]
