"""How long an import takes."""

from .cases import OURS, Case, Metric, Side, Target

MODULES = {
    OURS: "import_persistq",
    "sqlalchemy": "import_sqlalchemy",
    "persistq.connect": "import_connect",
    "nothing": "import_nothing",
}

CASES = [
    Case(
        "import",
        "Import",
        '`python -c "import ..."`, ms',
        "none",
        tuple(Side(name, "imports", workload) for name, workload in MODULES.items()),
        {"jobs": 5},
        (Target(1.3, "sqlalchemy", metric="ms", at_most=True),),
        (Metric("ms", "", 0, lower_is_better=True),),
    )
]
