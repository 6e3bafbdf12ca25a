"""Azure Files on this machine, as far as its SDK asks for it: Azurite does not speak it."""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.azure_files.server import Server
from tests.azure_files.shares import Failure, Shares
from tests.azurite.certificates import Certificates


@dataclass(frozen=True)
class AzureFiles:
    """A running double with two storage accounts.

    :param url: Its address, without the account.
    :param tokens: Bearer tokens that it takes, over https.
    :param requests: Method and address of every request, for those who count them.
    :param unanswered: Those it does not know how to answer; no test may leave any.
    """

    url: str
    keys: dict[str, str]
    shares: Shares = field(repr=False)
    tokens: set[str] = field(default_factory=set, repr=False)
    requests: list[str] = field(default_factory=list, repr=False)
    unanswered: list[str] = field(default_factory=list)

    def account_url(self, account: str = "first") -> str:
        return f"{self.url}/{account}"

    def create_share(self, name: str, account: str = "first") -> None:
        from azure.storage.fileshare import ShareClient

        ShareClient(self.account_url(account), name, credential=self.keys[account]).create_share()

    def sas(self, permissions: str = "rwdlc", account: str = "first", *, minutes: float = 60.0) -> str:
        """A SAS token of an account for its files."""
        from azure.storage.fileshare import AccountSasPermissions, ResourceTypes, generate_account_sas

        return generate_account_sas(
            account,
            self.keys[account],
            ResourceTypes(service=True, container=True, object=True),
            AccountSasPermissions.from_string(permissions),
            datetime.now(UTC) + timedelta(minutes=minutes),
        )

    def fail(self, method: str, comp: str, failure: Failure) -> None:
        """Answer the next request of that kind with a failure.

        :param comp: Of its query, such as ``range``; empty for requests without one.
        """
        self.shares.failures.append((method, comp, failure))


@contextmanager
def running_azure_files(certificates: Certificates | None = None) -> Iterator[AzureFiles]:
    """A double of its own, in memory, on a free port of this machine.

    :param certificates: To speak https, and then take tokens too.
    """
    keys = {name: base64.b64encode(f"the key of {name}".encode()).decode() for name in ("first", "second")}
    with Server() as server:
        if certificates:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.cert_file, certificates.key_file)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https" if certificates else "http"
        double = AzureFiles(f"{scheme}://127.0.0.1:{server.server_address[1]}", keys, Shares())
        server.double = double
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield double
        finally:
            server.shutdown()
            thread.join()
    if double.unanswered:
        raise AssertionError(f"The double of Azure Files could not answer {double.unanswered}.")
