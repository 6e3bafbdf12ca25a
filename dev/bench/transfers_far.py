"""The fast ones of :mod:`.transfers` once more: with 5 ms of latency added to each request, and over TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme

from dev.bench.blob_server import running_server
from dev.bench.report import Report
from dev.bench.transfer_cases import FAST, Case, Store, compare
from dev.bench.transfers import KEY, MEMORY_BYTES, MIDDLING, ONE_LARGE, SMALL, TREE

CASES = (ONE_LARGE, MIDDLING, SMALL, TREE)
LATENCY_MS = 5
RUNS = 1


def run(report: Report) -> None:
    with running_server(latency_ms=LATENCY_MS, memory_bytes=MEMORY_BYTES) as server:
        compare_all(report, f"{LATENCY_MS} ms of latency, ", Store(url=server.url, key=KEY))
    with tls_store(MEMORY_BYTES) as store:
        compare_all(report, "TLS, ", store)


def compare_all(report: Report, label: str, store: Store) -> None:
    for case in CASES:
        compare(report, label, store, Case(name=case.name, sizes=case.sizes, contenders=FAST), RUNS)


@contextmanager
def tls_store(memory_bytes: int = 0) -> Iterator[Store]:
    """A server with a certificate, signed by an authority of its own."""
    with TemporaryDirectory() as folder:
        authority = trustme.CA()
        certificate, trusted = Path(folder, "server.pem"), Path(folder, "authority.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        authority.cert_pem.write_to_path(str(trusted))
        with running_server(certificate=certificate, memory_bytes=memory_bytes) as server:
            yield Store(url=server.url, key=KEY, trusted=trusted)
