"""persistq's batches."""

import sys

from common import Work, main, workload
from streams import FILE_ITEMS, Flow, lists, objects, run, texts, until_over

from persistq.batch import BatchReader, BatchWriter


def produce_each(flow: Flow, source: list) -> None:
    with BatchWriter(flow.work.folder, "q", FILE_ITEMS, durability=flow.work.durability) as writer:
        for _ in range(flow.each // len(source)):
            for one in source:
                writer.add(one)


def consume_each(flow: Flow, _source: list) -> tuple:
    with BatchReader(flow.work.folder, "q", durability=flow.work.durability) as reader:

        def some() -> int:
            count = 0
            for _item in reader:
                count += 1
            return count

        return until_over(flow, some)


def produce_lists(flow: Flow, source: list) -> None:
    with BatchWriter(flow.work.folder, "q", FILE_ITEMS, durability=flow.work.durability) as writer:
        for _ in range(flow.each // sum(map(len, source))):
            for some in source:
                writer.add_many(some)


def consume_lists(flow: Flow, _source: list) -> tuple:
    with BatchReader(flow.work.folder, "q", durability=flow.work.durability) as reader:
        return until_over(flow, lambda: sum(map(len, reader.blocks())))


@workload
def strings(work: Work) -> dict:
    return run(work, lambda _flow: texts(), produce_each, consume_each)


@workload
def objs(work: Work) -> dict:
    return run(work, lambda _flow: objects(), produce_each, consume_each)


@workload
def blocks(work: Work) -> dict:
    return run(work, lambda _flow: lists(), produce_lists, consume_lists)


if __name__ == "__main__":
    sys.exit(main())
