"""The rows of an ingest: what is planned of many files costs as little for each as of few."""

from fileserver.catalogue.store import Store
from fileserver.transfer import ingest_rows
from fileserver.transfer.ingest_rows import Found


def found(folder, number):
    return Found("data", f"{folder}/{number}.h5", 10, "v", f"/home/admin/in/{number}.h5")


async def arranged(store, transfer, files):
    """What came of them, the states of all, and thousands of steps that SQLite took for it."""
    await store.write(lambda c: ingest_rows.enter(c, transfer, 1, files))
    steps = []

    def work(c):
        driver = c.connection.driver_connection
        driver.set_progress_handler(lambda: steps.append(1) and None, 1000)
        try:
            return ingest_rows.arrange(c, transfer, together=False)
        finally:
            driver.set_progress_handler(None, 0)

    came = await store.write(work)
    rows = await store.read(lambda c: ingest_rows.page(c, transfer, 1, pending=False, limit=len(files)))
    return came, {each.key: each.state for each in rows}, len(steps)


async def test_of_files_that_would_become_one_domain_the_first_is_loaded_however_many_there_are(tmp_path):
    store = Store(tmp_path)
    try:
        files = [found("a", i) for i in range(300)] + [found("b", i) for i in (7, 299)] + [found("c", 7)]
        came, states, few = await arranged(store, "few", files)
        assert came == (300, 3000)
        assert [key for key, state in states.items() if state == "failed"] == ["b/7.h5", "b/299.h5", "c/7.h5"]
        came, _, many = await arranged(store, "many", [found("a", i) for i in range(3000)])
        assert came == (3000, 30000)
        assert many < 20 * few
    finally:
        store.close()
