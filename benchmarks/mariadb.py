"""The cases on MariaDB, with innodb_flush_log_at_trx_commit = 1."""

from .cases import OURS, RAW, Case, Side, at_least, growth

GROUP = "MariaDB, innodb_flush_log_at_trx_commit = 1"
BATCH = 100
IN_TRANSACTION = "raw, BEGIN and COMMIT"


def case(name: str, title: str, workload: str, *more: Side, **work: object) -> Case:
    sides = (Side(OURS, "persistq_side", workload), Side(RAW, "raw_mariadb", workload), *more)
    return Case(f"mariadb/{name}", GROUP, title, "mariadb", sides, work, at_least(0.4, RAW))


CASES = [
    case(
        "enqueue",
        "`enqueue`, one by one",
        "enqueue",
        Side(IN_TRANSACTION, "raw_mariadb", "enqueue_transaction"),
        jobs=3_000,
    ),
    case("enqueue-many", "`enqueue_many`, 1,000 a call", "enqueue_many", jobs=100_000),
    case("exchange-1", "`exchange(limit=1)`", "exchange", jobs=3_000),
    case("exchange-100", "`exchange(limit=100)`", "exchange", jobs=60_000, batch=BATCH),
    case("consume-1", "one consumer process", "consume", jobs=60_000, batch=BATCH, processes=1),
    case("consume-2", "two consumer processes", "consume", jobs=60_000, batch=BATCH, processes=2),
    *growth("MariaDB", "mariadb", "mariadb", {OURS: "persistq_side", RAW: "raw_mariadb"}, BATCH, jobs=20_000),
]
