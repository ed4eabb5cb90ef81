"""The tasks that the real consumer is started with: ``--app app_persistq``."""

from common import Handler

from persistq import task

_handler = Handler()


@task
def noop(text: str) -> None:  # noqa: ARG001
    """Do nothing."""
    _handler.noop()


@task
def arrived(sent: float) -> None:
    """Note how long this job was on its way."""
    _handler.arrived(sent)


_handler.wait()
