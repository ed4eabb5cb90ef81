"""The screens, in the order of their keys."""

from collections.abc import Callable

from ..pane import Pane
from .audit import AuditPane, EntryPane
from .batches import BatchesPane
from .consumers import ConsumersPane
from .errors import ErrorsPane
from .help import HelpPane
from .job import JobPane
from .jobs import JobsPane
from .overview import OverviewPane
from .queues import QueuesPane
from .shards import ShardsPane

PANES: tuple[Callable[[], Pane], ...] = (
    OverviewPane, JobsPane, JobPane, QueuesPane, ConsumersPane, BatchesPane, ShardsPane, ErrorsPane, AuditPane,
    EntryPane, HelpPane,
)  # fmt: skip
