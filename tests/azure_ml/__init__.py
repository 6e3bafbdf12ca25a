"""Azure ML on this machine, under its real host names: an Azurite, the service that issues tokens, and a workspace that runs jobs.

The way to all of them is a proxy, so that the unmodified SDKs, and any process with ``AzureMl.environment``, find them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.azure_ml.job import Job
from tests.azure_ml.names import API_HOST, GROUP, LONG, SUBSCRIPTION, WORKSPACE, WORKSPACE_ID, resource_id
from tests.azure_ml.service import answer
from tests.azure_ml.state import PERMISSIONS, Failure, Hold, Request, State
from tests.azurite import running_azurite
from tests.azurite.certificates import Certificates
from tests.azurite.cloud import running_proxy
from tests.azurite.login import running_login
from tests.azurite.servers import CLOUDS, running_json_server

__all__ = [
    "GROUP",
    "LONG",
    "PERMISSIONS",
    "SUBSCRIPTION",
    "WORKSPACE",
    "WORKSPACE_ID",
    "AzureMl",
    "Failure",
    "Hold",
    "Job",
    "Request",
    "resource_id",
    "running_azure_ml",
]


class AzureMl(State):
    """A running Azure ML with one workspace."""

    def reset(self) -> None:
        """As it was when it was started, but for what lies in containers. Jobs end at once."""
        for job in list(self.jobs.values()):
            job.abort()
        with self.lock:
            self.refused.clear()
            new = AzureMl(self.azurite, self.login, self.certificates, self.folder, self.proxy_url, self.refused)
            vars(self).update(vars(new) | {"lock": self.lock})


@contextmanager
def running_azure_ml(folder: Path) -> Iterator[AzureMl]:
    """One of its own, with the storage accounts ``first`` and ``second``, behind a proxy that leads to it and to nothing else.

    :param folder: For its certificates, and what its jobs work in.
    """
    certificates = Certificates.make(folder)
    with running_azurite(certificates) as azurite, running_login(certificates) as login:
        service = AzureMl(azurite, login, certificates, folder)
        with running_json_server(certificates, partial(answer, service)) as url:
            storage = [f"{account}.{each}.core.windows.net" for account in azurite.keys for each in ("blob", "dfs")]
            hosts = dict.fromkeys([*CLOUDS, API_HOST], url) | dict.fromkeys(storage, azurite.url)
            hosts |= dict.fromkeys([each for each, _ in CLOUDS.values()], login.url)
            routes = {f"{host}:443": to for host, to in hosts.items()}
            with running_proxy(routes, service.refused) as service.proxy_url:
                try:
                    yield service
                finally:
                    service.reset()
