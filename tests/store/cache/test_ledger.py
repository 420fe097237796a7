"""The books of a block cache, opened by many at once."""

import multiprocessing
import sqlite3
import time
from pathlib import Path

from datahub.store.cache.ledger import Ledger


def opened(folder: Path, moment: float, report: "multiprocessing.Queue[str]") -> None:
    while time.time() < moment:
        pass
    try:
        with Ledger(folder).changing():
            report.put("opened")
    except (sqlite3.Error, OSError) as error:
        report.put(repr(error))


def test_processes_that_open_new_books_at_once_all_get_them(tmp_path):
    context = multiprocessing.get_context("fork")
    report: multiprocessing.Queue[str] = context.Queue()
    seen = []
    for number in range(25):  # without waiting for WAL, 1 opening of 24 failed here
        folder = tmp_path / str(number)
        folder.mkdir()
        moment = time.time() + 0.02
        processes = [context.Process(target=opened, args=(folder, moment, report)) for _ in range(4)]
        for process in processes:
            process.start()
        seen += [report.get(timeout=30) for _ in processes]
        for process in processes:
            process.join(30)
    assert seen == ["opened"] * len(seen)


def test_a_block_that_is_read_after_the_clock_was_set_back_was_read_then(tmp_path):
    ledger, now, key = Ledger(tmp_path), 1_000_000.0, "a" * 64
    with ledger.changing():
        ledger.reserve(key, 9, "tag", "", now, now)
        ledger.whole(key, now + 86400, 0, 0, "")
        for read, noted in ((now, now), (now - 5, now), (now + 5, now + 5)):
            ledger.used({key: (read, "tag")})
            assert [each.used for each in ledger.entries()] == [noted]
