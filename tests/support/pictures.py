"""The pictures of ``docs/dashboard.md``: ``PYTHONPATH=tests .venv/bin/python -m support.pictures``."""

import json
import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import persistq
from support.browser import Browser, Page
from support.dashboard import Served
from support.generated import ROOT

_IMAGES = ROOT / "docs" / "img"
_MOST_BYTES = 150_000
_SETTINGS = {"queue_durability": "process", "queue_backoff_seconds": 0.0}


def main() -> None:
    """Fill a queue, start the dashboard on it, and keep what a browser shows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        failed = _fill(folder / "queue.db")
        served = Served(folder, QUEUE_OPS_WRITE="1", QUEUE_OPS_ENVIRONMENT="staging")
        try:
            with closing(Browser(folder / "browser")) as browser:
                _take(browser, served.url, failed)
        finally:
            served.stop()


def _take(browser: Browser, url: str, failed: int) -> None:
    page = browser.page(width=1280, height=1080)
    page.open(url)
    page.shows("Failures")
    _keep(page, "overview")
    page.resize(1280, 900)
    page.open(f"{url}/jobs?status=failed&queue=mail")
    page.mark_row(0)
    page.mark_row(1)
    page.click("Resubmit selected (2)")
    page.shows("Resubmit 2 jobs?")
    _keep(page, "jobs")
    page.open(f"{url}/job?id={failed}")
    page.shows(f"Job {failed} is failed")
    _keep(page, "job")
    narrow = browser.page(width=390, height=844, dark=True)
    narrow.open(url)
    _keep(narrow, "narrow")


def _keep(page: Page, name: str) -> None:
    page.settle()
    path = _IMAGES / f"dashboard-{name}.png"
    page.picture(path)
    assert path.stat().st_size < _MOST_BYTES, f"{path} has {path.stat().st_size:,} bytes"


def _fill(path: Path) -> int:
    """Make the queue that the pictures show, and return the id of a failed job."""
    q = persistq.connect(path, **_SETTINGS)
    for number in range(40):
        q.enqueue(json.dumps({"user": number, "template": "welcome"}), "mail", task="send_mail")
        q.enqueue(f"/srv/reports/{number:03d}.csv", "reports", priority=number % 3)
    for number in range(64):
        job = q.dequeue(f"consumer_{number % 3:02d}@host:{400 + number % 3}:ab12")
        assert job is not None
        if number % 9 == 3:
            _fail(q, job, number)
        elif number % 21 != 20:
            q.complete(job, {"sent": number})
    q.cancel(q.enqueue("/srv/reports/old.csv", "reports"))
    now = q.clock.now()
    for number in range(3):
        q.beat(persistq.ConsumerInfo(
            id=f"consumer_{number:02d}@host:{400 + number}:ab12", name=f"consumer_{number:02d}", host="host",
            pid=400 + number, queues=("mail",), concurrency=4, running=number, started_at=now - timedelta(hours=2),
            seen_at=now + timedelta(minutes=number),
        ))  # fmt: skip
    q.close()
    return q.list_jobs("failed", queue="mail", limit=1)[0].id


def _fail(q: persistq.PersistentQSQLAlchemy, job: persistq.Job, number: int) -> None:
    try:
        raise ConnectionError(f"smtp.example:25 refused the connection after {number} s")
    except ConnectionError as error:
        q.fail(job, error, permanent=True)


if __name__ == "__main__":
    main()
