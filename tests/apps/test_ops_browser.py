"""The dashboard in a real browser: what a person does with it, and what a job's data cannot do."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser, Page, eventually
from support.dashboard import Served
from support.databases import SQLite
from support.jobs import Queue, claim

import persistq

pytestmark = pytest.mark.needs("chromium")

GRID = "[...document.querySelectorAll('[data-testid=stDataFrame] canvas table')].map(one => one.textContent).join('|')"


class Canary:
    """A server that nobody has a reason to call."""

    def __init__(self) -> None:
        hits: list[str] = []

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hits.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.hits = hits
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    found = Canary()
    yield found
    found.close()


@pytest.fixture(scope="module")
def q(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    """A queue in a folder of its own, which every test here works on."""
    folder = tmp_path_factory.mktemp("dashboard")
    Path(SQLite(folder).fresh()).rename(folder / "queue.db")
    found = persistq.connect(folder / "queue.db", queue_durability="process")
    yield found
    found.close()


@pytest.fixture(scope="module")
def served(q: Queue) -> Iterator[Served]:
    found = Served(Path(q.dbname).parent, QUEUE_OPS_WRITE="1", QUEUE_OPS_ENVIRONMENT="test bench")
    yield found
    found.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Page:
    return browser.page()


@pytest.fixture(autouse=True)
def empty(q: Queue) -> None:
    """Each test begins with no job."""
    q.delete_jobs(force=True)


def fail(q: Queue, item: str, error: str = "broken") -> int:
    job_id = q.enqueue(item, "broken")
    q.fail(claim(q, queue="broken"), error, permanent=True)
    return job_id


def test_a_person_finds_selects_and_resubmits(q: Queue, served: Served, browser: Browser, page: Page) -> None:
    ids = [fail(q, f"report {number}") for number in range(4)]
    q.enqueue("other")
    page.open(f"{served.url}/jobs?status=failed&queue=broken")
    page.until(f"{GRID}.includes('report 3') && !{GRID}.includes('other')", "the address is the filter")
    page.mark_row(1)
    page.click("Resubmit selected (1)")
    fail(q, "came between")
    page.shows("Resubmit 1 job?")
    page.click("Go ahead")
    page.shows("Resubmit: 1 job changed.")
    assert [job.id for job in q.list_jobs("pending", queue="broken")] == [ids[2]]

    page.type("Item contains", "report")
    page.until("location.search.includes('item=report')", "the filter is in the address")
    page.until(f"{GRID}.includes('report 3') && !{GRID}.includes('came between')", "the filter holds")
    page.click("CSV, at most")
    csv = eventually(lambda: list(browser.downloads.glob("*.csv")), "the file is there")[0].read_text()
    assert [line.partition(",")[0] for line in csv.splitlines()] == ["id", *(str(ids[place]) for place in (3, 1, 0))]
    page.click("Resubmit all matching")
    page.shows("Resubmit 3 jobs?")
    page.click("Go ahead")
    page.shows("Resubmit: 3 jobs changed.")
    assert q.counts("broken") == {"pending": 4, "processing": 0, "done": 0, "failed": 1, "cancelled": 0}
    assert [entry.via for entry in q.audit(limit=2)] == ["dashboard", "dashboard"]


def test_the_action_hits_the_selected_job(q: Queue, served: Served, page: Page, long: bool) -> None:
    """Jobs come all the time: before the choice, between choice and action, and between question and answer."""
    for round_ in range(50 if long else 2):
        ids = q.enqueue_many(["work"] * 5, f"round-{round_}")
        if round_:
            page.type("Queue", f"round-{round_}")
        else:
            page.open(f"{served.url}/jobs?queue=round-0")
        # By the queue's name, for a number such as an id stands in the times of other rows as well.
        page.until(f"{GRID}.includes('round-{round_}')", "the jobs are there")
        q.enqueue_many(["newer"] * 2, f"round-{round_}")
        page.mark_row(round_ % 5)
        page.click("Cancel selected (1)")
        q.enqueue("newest", f"round-{round_}")
        page.click("Go ahead")
        page.shows("Cancel: 1 job changed.")
        hit = [job.id for job in q.list_jobs("cancelled", queue=f"round-{round_}")]
        assert hit == [ids[::-1][round_ % 5]], f"round {round_}"


def test_the_keyboard_is_enough(q: Queue, served: Served, page: Page) -> None:
    """Filter, select, ask, leave it, ask again, go ahead: by Tab, Enter, Space and the arrows."""
    ids = [fail(q, f"report {number}") for number in range(3)]
    page.open(f"{served.url}/jobs?status=failed&queue=broken&item=nothing")
    page.shows("No job matches.")
    assert not [control for control in page.controls() if " " not in control], "a control without a name"
    own_order = "one => !['0', '-1'].includes(one.getAttribute('tabindex'))"
    assert page.evaluate(f"[...document.querySelectorAll('[tabindex]')].filter({own_order}).length") == 0
    passed = page.tab_to("textbox Item contains")
    page.call("Input.insertText", text="report")
    page.key("Enter")
    page.until(f"{GRID}.includes('report 2')", "the filter is taken")

    passed += page.tab_to("Canvas")
    page.key("ArrowDown")
    page.key(" ", shift=True)
    page.shows("Resubmit selected (1)")
    passed += page.tab_to("button Resubmit selected (1)")
    order = ["Status", "More filters", "Queue", "Item contains", "Rows", "Refresh", "Open", "Resubmit selected"]
    assert in_order([*passed, page.focused()], order)

    page.key("Enter")
    page.shows("Resubmit 1 job?")
    page.tab_to("button Leave it")
    page.key(" ")
    page.until("document.querySelector('[role=dialog]') === null", "the dialog is gone")
    assert q.counts()["failed"] == 3
    page.tab_to("button Resubmit selected (1)")
    page.key(" ")
    page.shows("Resubmit 1 job?")
    inside = page.tab_to("button Go ahead")
    assert in_order(inside, ["Reason, for the audit log"])
    page.key("Enter")
    page.shows("Resubmit: 1 job changed.")
    assert [job.id for job in q.list_jobs("pending")] == [ids[1]]


def in_order(said: list[str], wanted: list[str]) -> bool:
    """Return whether each of the wanted words is said, one after the other."""
    rest = iter(said)
    missing = [word for word in wanted if not any(word in one for one in rest)]
    assert not missing, f"{missing} not in this order in {said}"
    return True


def test_two_visitors_at_once(q: Queue, served: Served, browser: Browser, page: Page) -> None:
    q.enqueue("work")
    other = browser.page()
    for one in (page, other):
        one.open(f"{served.url}/jobs")
        one.until(f"{GRID}.includes('work')", "the job is there")
        one.mark_row(0)
        one.click("Cancel selected (1)")
        one.shows("Cancel 1 job?")
    page.click("Go ahead")
    page.shows("Cancel: 1 job changed.")
    other.click("Go ahead")
    other.shows("0 jobs changed, 1 left as they are.")
    other.leave()
    assert len([entry for entry in q.audit(limit=10, action="cancel") if entry.counts.get("changed")]) >= 1
    assert q.counts()["cancelled"] == 1


def test_data_runs_nothing_and_calls_nobody(q: Queue, served: Served, page: Page, canary: Canary) -> None:
    hostile = [
        f'<img src="{canary.url}/img" onerror="fetch(\'{canary.url}/onerror\')">',
        f"![x]({canary.url}/markdown) [y](javascript:fetch('{canary.url}/link'))",
        f"<script>fetch('{canary.url}/script')</script>",
        f"{canary.url}/plain",
        json.dumps({"image": f"{canary.url}/json", "href": f"javascript:fetch('{canary.url}/href')"}),
    ]
    ids = [fail(q, text, text) for text in hostile]
    now = q.clock.now()
    for number, text in enumerate(hostile):
        q.beat(persistq.ConsumerInfo(
            id=f"{number}{text}"[:250], name=text[:250], host=text[:250], pid=1, queues=(text,), concurrency=1,
            running=1, started_at=now, seen_at=now, tasks=(text,),
        ))  # fmt: skip
    page.requests.clear()
    page.open(served.url)
    for title in ("Consumers", "Audit", "Job"):
        page.go(title)
    for job_id in ids:
        page.type("Job id", str(job_id))
        page.shows(f"Job {job_id} is failed")
        page.ready()
    page.go("Jobs")
    page.mark_row(0)
    page.click("Resubmit selected (1)")
    page.shows("Resubmit 1 job?")
    assert page.evaluate("document.querySelectorAll('img[onerror], a[href^=javascript]').length") == 0
    assert canary.hits == []
    outside = [
        url for url in page.requests if not url.startswith((served.url, "ws" + served.url[4:], "data:", "blob:"))
    ]
    assert outside == []
    assert not [text for text in page.complaints if "Content Security Policy" in text]
    q.prune_consumers(0)


def test_dark_and_narrow(q: Queue, served: Served, browser: Browser) -> None:
    q.enqueue_many(["work"] * 3)
    narrow = browser.page(width=390, height=844, dark=True)
    narrow.open(served.url)
    for title in ("Overview", "Jobs", "Maintenance"):
        narrow.go(title)
        assert narrow.evaluate("document.documentElement.scrollWidth") <= 390, title
    background = "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
    dark = [int(part) for part in narrow.evaluate(background).strip("rgb()").split(",")[:3]]
    narrow.prefer(dark=False)
    narrow.open(served.url)
    light = [int(part) for part in narrow.evaluate(background).strip("rgb()").split(",")[:3]]
    assert max(dark) < 64 < 192 < min(light)
    assert narrow.evaluate("document.querySelectorAll('main').length") == 1
    narrow.leave()


def test_a_database_that_goes_away_comes_back_by_itself(q: Queue, served: Served, page: Page) -> None:
    q.enqueue("work")
    page.open(f"{served.url}/maintenance")
    page.shows("pending")
    path = Path(q.dbname)
    q.close()
    away = path.with_name("away.db")
    path.rename(away)
    page.click("Overview", "[data-testid=stSidebarNavLink]")
    page.shows("The queue cannot be read now.")
    assert "Traceback" not in page.text()
    away.rename(path)
    page.shows("longest wait now")
    assert "cannot be read" not in page.text()
