"""supervisorctl plugin: bare process names and wildcards, as in ``stop consumer_00`` and ``status consumer*``.

Supervisor addresses a process of a group as ``group:process`` only, and knows no wildcards. Its own
commands cannot be replaced by a plugin, but the controller looks for ``do_*`` on itself first.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

_COMMANDS = ("status", "start", "stop", "restart", "signal", "pid", "clear", "tail")


class NamesPlugin:
    """Expands the names in a command before Supervisor sees them."""

    name = "persistq"

    def __init__(self, controller: Any) -> None:
        self._controller = controller
        builtin = controller.options.plugins[0]
        for command in _COMMANDS:
            setattr(controller, f"do_{command}", self._expanding(command, getattr(builtin, f"do_{command}")))

    def _expanding(self, command: str, do: Callable[[str], Any]) -> Callable[[str], Any]:
        def run(argument: str) -> Any:
            words = argument.split()
            # 'signal HUP producer' and 'tail -f producer stdout' hold words that name no process.
            kept = words[:1] if command == "signal" else []
            names = words[len(kept) :]
            if names and self._controller.upcheck():
                names = self._expand(names)
            return do(" ".join([*kept, *names]))

        run.__doc__ = do.__doc__
        return run

    def _expand(self, words: list[str]) -> list[str]:
        known = self._controller.get_supervisor().getAllProcessInfo()
        expanded: list[str] = []
        for word in words:
            found = [
                info["name"] if info["name"] == info["group"] else f"{info['group']}:{info['name']}"
                for info in known
                if ":" not in word and (fnmatchcase(info["name"], word) or fnmatchcase(info["group"], word))
            ]
            expanded += found or [word]
        return list(dict.fromkeys(expanded))


def make(controller: Any, **_options: Any) -> NamesPlugin:
    """Return the plugin; supervisorctl calls this."""
    return NamesPlugin(controller)
