"""``python -m manager.manager.py`` is ``python -m manager.manager``."""

import sys
from importlib import import_module
from pathlib import Path

# From a checkout this is manager.manager.py, installed persistq.manager.manager.py: the name says which.
_manager = import_module((__package__ or Path(__file__).parent.name).removesuffix(".py"))

if __name__ == "__main__":
    sys.exit(_manager.main())
