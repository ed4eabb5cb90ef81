"""The cases on PostgreSQL, with fsync on."""

from .cases import OURS, RAW, Case, Metric, Side, Target, at_least, growth
from .sqlite import LATENCY
from .venvs import Peer

PGQUEUER = Peer("pgqueuer", ("pgqueuer[asyncpg]",))
PROCRASTINATE = Peer("procrastinate", ("procrastinate", "psycopg[binary]"))
OBAN = Peer("oban", ("oban", "psycopg[binary]"), python="3.12")
AWA = Peer("awa", ("awa-pg",))
PEERS = (PGQUEUER, PROCRASTINATE, OBAN, AWA)
GROUP = "PostgreSQL, fsync on"
BATCH = 100
IN_TRANSACTION = "raw, BEGIN and COMMIT"


def ours(workload: str, **work: object) -> Side:
    return Side(OURS, "persistq_side", workload, work=work)


def raw(workload: str, name: str = RAW, **work: object) -> Side:
    return Side(name, "raw_postgres", workload, work=work)


def peers(workload: str, *which: Peer, **work: object) -> tuple[Side, ...]:
    return tuple(Side(peer.name, f"peer_{peer.name}", workload, peer, work) for peer in which)


def case(name: str, title: str, sides: tuple[Side, ...], *targets: Target, **other: object) -> Case:
    options = {key: other.pop(key) for key in ("metrics", "most_runs", "group") if key in other}
    group = str(options.pop("group", GROUP))
    return Case(f"postgres/{name}", group, title, "postgres", sides, other, targets, **options)


def consumers(number: int, title: str) -> Case:
    return case(
        f"consume-{number}",
        title,
        (ours("consume", jobs=60_000), raw("consume", jobs=100_000), *peers("consume", *PEERS, jobs=20_000)),
        *at_least(0.4, RAW),
        *at_least(2, PGQUEUER.name),
        *at_least(5, OBAN.name, AWA.name),
        *at_least(20, PROCRASTINATE.name),
        processes=number,
        batch=BATCH,
    )


CASES = [
    case(
        "enqueue",
        "`enqueue`, one by one",
        (
            ours("enqueue"),
            raw("enqueue"),
            raw("enqueue_transaction", IN_TRANSACTION),
            *peers("enqueue", *PEERS),
        ),
        *at_least(0.8, RAW, IN_TRANSACTION),
        *at_least(1, PGQUEUER.name),
        jobs=3_000,
    ),
    case(
        "enqueue-many",
        "`enqueue_many`, 1,000 a call",
        (ours("enqueue_many"), raw("enqueue_many"), *peers("enqueue_many", *PEERS)),
        *at_least(0.6, RAW),
        *at_least(2, PGQUEUER.name),
        jobs=100_000,
    ),
    case("exchange-1", "`exchange(limit=1)`", (ours("exchange"), raw("exchange")), jobs=3_000),
    case("exchange-100", "`exchange(limit=100)`", (ours("exchange"), raw("exchange")), jobs=60_000, batch=BATCH),
    consumers(1, "one consumer process"),
    consumers(2, "two consumer processes"),
    case(
        "latency",
        "idle, from `enqueue` to the handler",
        (ours("latency"), *peers("latency", PGQUEUER)),
        Target(1, PGQUEUER.name, metric="p50", at_most=True),
        metrics=LATENCY,
        most_runs=3,
        jobs=40,
    ),
    *growth("PostgreSQL", "postgres", "postgres", {OURS: "persistq_side", RAW: "raw_postgres"}, BATCH, jobs=20_000),
    case(
        "churn",
        "very many jobs through a queue of 1,000",
        (ours("churn"), raw("churn")),
        Target(1.5, metric="growth", at_most=True, unit="times the first minute's p99"),
        group="PostgreSQL: 1,000,000 jobs through a queue of 1,000",
        metrics=(
            Metric("first", "p99 of a claim in the first minute, ms", 2, lower_is_better=True),
            Metric("last", "p99 of a claim in the last minute, ms", 2, lower_is_better=True),
            Metric("growth", "last to first", 2, lower_is_better=True),
            Metric("rate", "jobs a second"),
        ),
        most_runs=1,
        jobs=1_000_000,
        rows=1_000,
        batch=10,
        seconds=1_200,
    ),
]
