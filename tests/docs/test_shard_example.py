"""The example of shards runs as it stands, and the seed document's as it stands there."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SEED = """
from asyncio import gather, run
from dataclasses import dataclass

from persistq.sharded import Handler, Queue, Route, RuntimeCoordinator, RuntimeStorage, Worker


@dataclass
class NotifyRequest:
    '''
    In this example we have simple notify request containing user identifier
    In addition, the value is used to shard requests over worker threads
    '''
    user_id: int

class NotifyHandler(Handler):
    @classmethod
    async def route(cls, *requests: NotifyRequest) -> list[Route]:
        '''
        Spread requests by 3 threads that can be concurrently processed
        '''
        return [
            Route(thread=request.user_id % 3)
            for request in requests
        ]

    async def perform(self, *requests: NotifyRequest) -> None:
        '''
        Perform is called using configurable batch size
        This allows you to reduce io per single request
        '''
        # users = await UserRepository.find_all([r.user_id for r in requests])
        # await mailer.send_all([construct_message(user) for user in users])
        print(*[r.user_id for r in requests])


async def example():
    '''
    let's register notification for first 9 users
    '''
    queue: Queue = Queue(RuntimeStorage())
    await queue.register(NotifyHandler, *[NotifyRequest(n) for n in range(1, 9)])
    '''
    now all requests are waiting for workers on 3 notify handler tubes
    they were distributed using route handler method
    first tube contains notify request for users 1, 4, 7
    second tube contains requests for 2, 5, 8 and other goes to third tube
    '''
    futures = [
        Worker(RuntimeCoordinator(), queue).loop(3),
        Worker(RuntimeCoordinator(), queue).loop(3),
        Worker(RuntimeCoordinator(), queue).loop(3),
    ]
    '''
    we've just run three coroutines that will process messages
    workers will bind to each thread and process all messages
    '''
    await gather(*futures)
    '''
    now all emails were send in 3 threads
    '''

run(example())
"""


def output_of(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_the_example_notifies_every_user_once_each_thread_in_order() -> None:
    assert output_of(str(ROOT / "examples/sharded_notify.py")) == [
        "thread 0: [3, 6]", "thread 1: [1, 4, 7]", "thread 2: [2, 5, 8]",
    ]  # fmt: skip


def test_the_seed_documents_example_runs_and_ends() -> None:
    assert sorted(output_of("-c", SEED)) == ["1 4 7", "2 5 8", "3 6"]
