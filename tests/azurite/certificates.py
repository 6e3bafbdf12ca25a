"""A throw-away certificate authority, and the certificate of every server of the tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_HOSTS = (
    "127.0.0.1",
    "localhost",
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.chinacloudapi.cn",
    "management.azure.com",
    "management.usgovcloudapi.net",
    "management.chinacloudapi.cn",
    "*.api.azureml.ms",
    *(f"*.{each}.core.windows.net" for each in ("blob", "dfs", "file")),
)


@dataclass(frozen=True)
class Certificates:
    """Where they lie, as PEM."""

    ca_file: Path
    cert_file: Path
    key_file: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        import trustme

        made = cls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(made.ca_file)
        server = authority.issue_cert(*_HOSTS)
        server.private_key_pem.write_to_path(made.key_file)
        for position, part in enumerate(server.cert_chain_pems):
            part.write_to_path(made.cert_file, append=position > 0)
        return made

    @property
    def environment(self) -> dict[str, str]:
        """Makes obstore (the first) and the SDKs of Azure (the second) trust the authority."""
        return {"SSL_CERT_FILE": str(self.ca_file), "REQUESTS_CA_BUNDLE": str(self.ca_file)}
