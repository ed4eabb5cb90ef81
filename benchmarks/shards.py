"""The cases of shards: register and perform, in memory, on Redis, on SQL; beside sharded-queue and bare statements."""

from .cases import OURS, RAW, Case, Side, Target, at_least
from .venvs import Peer

SHARDED = Peer("sharded-queue", ("sharded-queue", "pydantic-settings", "redis", "python-dateutil"))
FEW, MANY = 3, 64
BUSY = "10,000 tubes, 10 busy"


def ours(workload: str, name: str = OURS, **work: object) -> Side:
    return Side(name, "shards_persistq", workload, work=work)


def peer(workload: str, name: str = SHARDED.name, **work: object) -> Side:
    return Side(name, "peer_sharded_queue", workload, SHARDED, work)


def case(
    name: str, where: str, title: str, sides: tuple[Side, ...], *targets: Target, server: str = "none", **work: object
) -> Case:
    return Case(f"shards/{name}", f"Shards {where}, requests/s", title, server, sides, work, targets)


def in_memory(threads: int) -> list[Case]:
    """Return what is compared in memory with so many threads."""
    idle = {FEW: 20, MANY: 500}[threads]
    return [
        case(
            f"memory/register-{threads}", "in memory", f"register 1,000 a call, {threads} threads",
            (ours("register"), peer("register")), *at_least(3, SHARDED.name),
            jobs=300_000, batch=1000, threads=threads,
        ),
        *(
            case(
                f"memory/perform-{threads}-{workers}", "in memory",
                f"perform, {threads} threads, {workers} worker{'s' * (workers > 1)}",
                (ours("perform"), peer("perform", state="tuned")), *at_least(1, SHARDED.name),
                jobs=300_000, threads=threads, processes=workers,
            )
            for workers in (1, 3)
        ),
        case(
            f"memory/default-{threads}", "in memory", f"perform, {threads} threads, 1 worker, default settings",
            (ours("perform"), peer("perform")), *at_least(idle, SHARDED.name),
            jobs=10_000, threads=threads, seconds=30.0,
        ),
    ]  # fmt: skip


def on_redis(threads: int) -> list[Case]:
    """Return what is compared on a Redis server that keeps everything in memory."""
    return [
        case(
            f"redis/register-{threads}", "on Redis", f"register 128 a call, {threads} threads",
            (ours("redis_register"), peer("redis_register")), *(at_least(5, SHARDED.name) if threads == MANY else ()),
            jobs=60_000, batch=128, threads=threads,
        ),
        case(
            f"redis/perform-{threads}", "on Redis", f"perform, {threads} threads, 1 worker",
            (ours("redis_perform", state="tuned"), peer("redis_perform", state="tuned")),
            *at_least(1.2, SHARDED.name), jobs=60_000, threads=threads,
        ),
    ]  # fmt: skip


def on_sql(server: str, name: str) -> list[Case]:
    """Return what is compared on a database."""
    return [
        case(
            f"{server}/perform", f"on {name}", "perform, 64 threads, 1 worker",
            (ours("sql_perform"), ours("raw_perform", RAW)), Target(20_000, unit="requests/s"),
            server=server, jobs=60_000, threads=MANY, durability="power",
        ),
        case(
            f"{server}/find", f"on {name}", "find work, looks/s",
            (ours("sql_finding", BUSY, threads=10_000), ours("sql_finding", "10 tubes", threads=10)),
            Target(0.5, "10 tubes", BUSY), server=server, jobs=10, durability="process", seconds=4.0,
        ),
    ]  # fmt: skip


CASES = [
    *(one for threads in (FEW, MANY) for one in in_memory(threads)),
    case(
        "memory/find", "in memory", "find work, looks/s",
        (ours("memory_finding", BUSY, threads=10_000), ours("memory_finding", "10 tubes", threads=10)),
        Target(0.5, "10 tubes", BUSY), jobs=10, seconds=4.0,
    ),
    *(one for threads in (FEW, MANY) for one in on_redis(threads)),
    case(
        "redis/find", "on Redis", "find work, looks/s",
        (ours("redis_finding", BUSY, threads=10_000), ours("redis_finding", "10 tubes", threads=10)),
        Target(0.5, "10 tubes", BUSY), jobs=10, seconds=4.0,
    ),
    *on_sql("sqlite", "SQLite (FULL)"),
    *on_sql("postgres", "PostgreSQL"),
]  # fmt: skip
