"""100,000 blobs: listed, staged from a manifest and committed, and the memory that takes."""

from dev.bench.blob_server import running_server
from dev.bench.report import Report, Row
from dev.bench.transfer_cases import Bench, Case, Store, compare, workplace
from dev.bench.transfers import KEY

FILES = 100_000


def run(report: Report) -> None:
    case = Case(name=f"{FILES:,} x 16 B", sizes=[16] * FILES, contenders=("ours", "azcopy"), memory_mb=None)
    with running_server() as server:
        store = Store(url=server.url, key=KEY)
        report_listing(report, store, case)
        compare(report, "", store, case, runs=1)


def report_listing(report: Report, store: Store, case: Case) -> None:
    with workplace() as folder:
        bench = Bench(store, case, folder)
        ours, theirs = bench.list("ours"), bench.list("azure_storage_blob")
        bench.close()
    files = len(case.sizes)
    name = f"{files:,} blobs listed (theirs: azure_storage_blob)"
    report.add(
        Row(name=name, ours=files / ours.seconds, theirs=files / theirs.seconds, unit="blobs/s", better="higher")
    )
    report.add(Row(name="  its peak memory", ours=ours.memory_mb, theirs=theirs.memory_mb, unit="MB"))
