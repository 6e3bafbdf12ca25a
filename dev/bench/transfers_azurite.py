"""The same on Azurite, which is itself the limit: figures to look at, not to compare clients by."""

from dev.bench.report import Report
from dev.bench.transfer_cases import FAST, Case, Store, compare
from tests.azurite import running_azurite

CASES = (
    Case(name="1 x 256 MiB", sizes=[256 << 20], contenders=FAST),
    Case(name="2,000 x 4 KiB", sizes=[4 << 10] * 2000, contenders=FAST),
)


def run(report: Report) -> None:
    with running_azurite() as azurite:
        for case in CASES:
            compare(report, "Azurite, ", Store(url=azurite.account_url(), key=azurite.keys["first"]), case, runs=1)
