"""The files that are made from the code: ``make docs`` writes them, a test compares them."""

from pathlib import Path

from persistq import states
from persistq.settings import Settings

ROOT = Path(__file__).parents[2]

_STATES = f"""# A job's states

Made from `persistq/states.py` by `make docs`.

```mermaid
{states.mermaid()}
```

## What each event does in each status

{states.table()}

A claim raises the job's fence, and the lease holds only with that fence: `complete`, `crash`, `release` and
`fail` by the holder are guarded by it. Every other move raises it again, so that a holder is refused from then
on with `LeaseLost`. A refused move raises `IllegalTransition` and changes nothing.

`crashed` is an event, and a filter (`list-jobs --status crashed`: pending jobs that were delivered before), not
a status: the job is pending again at once, or failed.

## Words

| we write | also accepted |
| --- | --- |
| `pending` | unprocessed, queued, ready |
| `processing` | under_process, running |
| `done` | processed, completed |
| `failed` | manual_intervention, dead |
| `cancelled` | canceled |
"""

FILES = {ROOT / "docs/states.md": _STATES, ROOT / ".env.example": Settings.example()}


def main() -> None:
    """Write the files."""
    for path, text in FILES.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
