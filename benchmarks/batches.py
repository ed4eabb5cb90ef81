"""The cases of batch files: one producer and one consumer process, and two of each, items of 100 bytes."""

from .cases import OURS, RATE, Case, Metric, Side, Target, at_least
from .venvs import Peer

TURBO = Peer("turbo-queue", ("turbo-queue", "confluent-kafka"))
FIFO = Peer("faster-fifo", ("faster-fifo",))
LIMIT = "raw packed files"
MEMORY = "multiprocessing.Queue"
MANY = 4_000_000
DURABLE = f"{OURS}, durable"
METRICS = (RATE, Metric("cpu", "processor time of all processes, µs an item", 2, lower_is_better=True))


def ours(workload: str, name: str = OURS, durability: str = "process", **work: object) -> Side:
    return Side(name, "batch_persistq", workload, work={"durability": durability, **work})


def case(name: str, title: str, sides: tuple[Side, ...], *targets: Target, **work: object) -> Case:
    return Case(
        f"batches/{name}", "Batch files, items/s", title, "none", sides, {"jobs": MANY, **work}, targets, METRICS
    )


def turbo(workload: str) -> Side:
    return Side(TURBO.name, "peer_turbo_queue", workload, TURBO, {"jobs": 500_000})


CASES = [
    case(
        "strings",
        "item by item, 1 + 1 processes",
        (
            ours("strings"),
            ours("strings", DURABLE, "power"),
            turbo("strings"),
            Side(LIMIT, "batch_raw", "strings", work={"durability": "process"}),
            Side(f"{LIMIT}, durable", "batch_raw", "strings", work={"durability": "power"}),
            Side(MEMORY, "batch_memory", "strings", work={"jobs": 200_000}),
            Side(FIFO.name, "peer_faster_fifo", "strings", FIFO, {"jobs": 500_000}),
        ),
        *at_least(8, TURBO.name, FIFO.name),
        *at_least(0.6, LIMIT),
        *at_least(15, MEMORY),
        *at_least(5, TURBO.name, ours=DURABLE),
        *at_least(0.6, f"{LIMIT}, durable", ours=DURABLE),
    ),
    case(
        "lists",
        "lists of 1,000, 1 + 1 processes",
        (ours("blocks"), Side(MEMORY, "batch_memory", "strings", work={"state": "lists"})),
        *at_least(1, MEMORY),
    ),
    case(
        "objects",
        "JSON objects item by item, 1 + 1 processes",
        (ours("objs", jobs=2_000_000), turbo("objs")),
        *at_least(6, TURBO.name),
    ),
    case(
        "two",
        "item by item, 2 + 2 processes",
        (ours("strings", processes=2), ours("strings", f"{OURS}, 1 + 1")),
        *at_least(1, f"{OURS}, 1 + 1"),
    ),
]
