"""Files to Azure Blob storage and back, end to end, beside azcopy, rclone, Microsoft's library, adlfs and WasbHook.

Over plain http, with a server on this machine that is not the limit: :mod:`.blob_server`.
"""

import random

from dev.bench.blob_limit import limits
from dev.bench.blob_server import running_server
from dev.bench.report import Report
from dev.bench.transfer_cases import Case, Store, compare

KEY = "bm90IGFza2VkIGZvcg=="
_KIB, _GIB = 1 << 10, 1 << 30
MEMORY_BYTES = 5 * _GIB // 2
RUNS = 3


def _targets(azcopy_down: float, azcopy_up: float, wasb_hook: float | None = None) -> dict[tuple[str, str], float]:
    found = {("azcopy", "down"): azcopy_down, ("azcopy", "up"): azcopy_up, ("rclone", "down"): 1, ("rclone", "up"): 1}
    return found | ({} if wasb_hook is None else {("wasb_hook", "down"): wasb_hook})


def _tree() -> list[int]:
    """Sizes as they come: most files small, most bytes in large ones."""
    shape = random.Random(7)
    sizes = [shape.lognormvariate(0, 2) for _ in range(3000)]
    return [max(1, int(each * 717_000_000 / sum(sizes))) for each in sizes]


ONE_LARGE = Case(name="1 x 1 GiB", sizes=[_GIB], targets=_targets(2, 1.3, 5))
MIDDLING = Case(name="2,000 x 64 KiB", sizes=[64 * _KIB] * 2000, targets=_targets(1, 1, 10))
SMALL = Case(name="10,000 x 4 KiB", sizes=[4 * _KIB] * 10_000, targets=_targets(2.5, 2.5, 10))
TREE = Case(name="tree of 3,000 files, 717 MB", sizes=_tree(), targets=_targets(1.7, 1.7))
MANY = Case(name="50,000 x 4 KiB", sizes=[4 * _KIB] * 50_000, contenders=("ours", "azcopy"), targets=_targets(1.5, 1.5))


def run(report: Report) -> None:
    with running_server(memory_bytes=MEMORY_BYTES) as server:
        for case in (ONE_LARGE, MIDDLING, SMALL, TREE, MANY):
            compare(report, "", Store(url=server.url, key=KEY), case, RUNS, limits(server.url, case.sizes))
