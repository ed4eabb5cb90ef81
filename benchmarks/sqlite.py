"""The cases on SQLite, at both durabilities; every peer is set to the same one."""

from .cases import OURS, RAW, Case, Metric, Side, Target, at_least, growth
from .venvs import Peer

HUEY = Peer("huey", ("huey",))
LITEQUEUE = Peer("litequeue", ("litequeue",), python="3.12", otherwise=True)
PERSIST_QUEUE = Peer("persist-queue", ("persist-queue",))
LOCALQUEUE = Peer("localqueue", ("localqueue",))
GIGQ = Peer("gigq", ("gigq",))
HONKER = Peer("honker", ("honker",))

#: These keep a row that says what became of a job; huey deletes it before it performs the job.
KEEPERS = (LITEQUEUE, PERSIST_QUEUE, LOCALQUEUE, GIGQ)
PEERS = (HUEY, *KEEPERS, HONKER)
BATCH = 100
THREADED = (HUEY, PERSIST_QUEUE, LOCALQUEUE)
LATENCY = (
    Metric("p50", "median, ms", 1, lower_is_better=True),
    Metric("p99", "p99, ms", 1, lower_is_better=True),
    Metric("idle", "an idle consumer, % of a core", 2, lower_is_better=True),
)


def ours(workload: str, name: str = OURS, **work: object) -> Side:
    return Side(name, "persistq_side", workload, work=work)


def raw(workload: str, name: str = RAW, **work: object) -> Side:
    return Side(name, "raw_sqlite", workload, work=work)


def peers(workload: str, *which: Peer, **work: object) -> tuple[Side, ...]:
    return tuple(Side(peer.name, "peer_" + peer.name.replace("-", "_"), workload, peer, work) for peer in which)


def cases(durability: str) -> list[Case]:
    """Return the cases at one durability."""
    words = {"power": "durable against power loss (FULL)", "process": "durable against the death of processes (NORMAL)"}
    group = f"SQLite, {words[durability]}"
    few = 3_000 if durability == "power" else 10_000

    def case(name: str, title: str, sides: tuple[Side, ...], *targets: Target, **other: object) -> Case:
        options = {key: other.pop(key) for key in ("metrics", "most_runs") if key in other}
        return Case(
            f"sqlite/{durability}/{name}", group, title, "sqlite", sides,
            {"durability": durability, **other}, targets, **options,
        )  # fmt: skip

    def threads(number: int, bound: float) -> Case:
        return case(
            f"enqueue-{number}-threads",
            f"`enqueue` from {number} threads",
            (
                ours("enqueue_threads", jobs=12_800, threads=number),
                raw("enqueue_threads", jobs=12_800, threads=number),
                *peers("enqueue_threads", *THREADED, jobs=few, threads=number),
                ours("enqueue_threads", f"{OURS}, one thread", jobs=few, threads=1),
            ),
            *at_least(bound, f"{OURS}, one thread"),
        )

    def consumers(number: int, title: str) -> Case:
        return case(
            f"consume-{number}",
            title,
            (
                ours("consume", jobs=60_000),
                raw("consume", jobs=200_000),
                *peers("consume", HUEY, *KEEPERS, jobs=5_000),
            ),
            *at_least(0.35, RAW),
            *at_least(8, HUEY.name),
            *at_least(10, *(peer.name for peer in KEEPERS)),
            processes=number,
            batch=BATCH,
        )

    return [
        case(
            "enqueue",
            "`enqueue`, one by one",
            (ours("enqueue"), raw("enqueue"), *peers("enqueue", *PEERS)),
            *at_least(0.8, RAW),
            jobs=few,
        ),
        threads(16, 3),
        threads(64, 4),
        case(
            "enqueue-many",
            "`enqueue_many`, 1,000 a call",
            (ours("enqueue_many"), raw("enqueue_many"), *peers("enqueue_many", LOCALQUEUE)),
            *at_least(0.6, RAW),
            *at_least(1, LOCALQUEUE.name),
            jobs=100_000,
        ),
        case(
            "exchange-1",
            "`exchange(limit=1)`: one commit a job",
            (ours("exchange"), raw("exchange"), *peers("exchange", HUEY, *KEEPERS)),
            *at_least(0.7, RAW),
            *at_least(2, LITEQUEUE.name),
            *at_least(1.2, HUEY.name),
            jobs=few,
        ),
        case(
            "exchange-100",
            "`exchange(limit=100)`",
            (ours("exchange", jobs=40_000), raw("exchange", jobs=100_000)),
            batch=BATCH,
        ),
        consumers(1, "one consumer process"),
        consumers(4, "four consumer processes"),
        case(
            "latency",
            "idle, from `enqueue` to the handler",
            (ours("latency"), *peers("latency", HUEY, LOCALQUEUE)),
            Target(5, metric="p50", at_most=True, unit="ms"),
            Target(1, metric="idle", at_most=True, unit="% of a core"),
            metrics=LATENCY,
            most_runs=3,
            jobs=40,
        ),
    ]


CASES = [
    *cases("power"),
    *cases("process"),
    *growth(
        "SQLite", "sqlite", "sqlite", {OURS: "persistq_side", RAW: "raw_sqlite"}, 1, jobs=1_000, durability="power"
    ),
    *growth(
        "SQLite", "sqlite", "sqlite", {OURS: "persistq_side", RAW: "raw_sqlite"}, BATCH, jobs=20_000, durability="power"
    ),
]
