"""What Azure ML's answers mean when they are not what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_aml_data.errors import AmlDataError, AzureMlError, AzureMlNotFound, AzureMlRefused

if TYPE_CHECKING:
    import httpx

    from airflow_aml_data.core.azureml.control_plane import ControlPlane

WORKSPACES = "2024-10-01-preview"
"""API version of the workspace itself, and of its datastores: in the one without "preview", secrets do not expire."""
_TRY_AGAIN = {408, 425, 429}
_MISSING_ABOVE = {
    "SubscriptionNotFound": "subscription_id",
    "InvalidSubscriptionId": "subscription_id",
    "ResourceGroupNotFound": "resource_group",
}
"""Code to the key of the connection that names nothing."""
_COLLECTIONS = {
    "jobs": "Job",
    "computes": "Compute",
    "datastores": "Datastore",
    "data": "Data asset",
    "environments": "Environment",
    "codes": "Code",
    "runs": "Run",
}
_LISTED = {
    "computes": "2023-08-01-preview",
    "datastores": WORKSPACES,
    "data": "2023-04-01",
    "environments": "2023-04-01",
}
"""Collections whose names are told when one is not there: those that are short. With the API version to ask with."""
_ROLE = "Needed: role 'AzureML Data Scientist' on the workspace, or one that permits as much"


class Refusals:
    """Turns answers into errors.

    :param workspace: Asked what there is when something is not.
    :param who: Workspace and connection, as the first words of messages.
    """

    def __init__(self, workspace: ControlPlane, who: str) -> None:
        self._workspace, self._who = workspace, who
        self._is_known = False

    def out_of_reach(self, error: httpx.HTTPError, url: str) -> AmlDataError:
        """What it means that no answer came."""
        host = url.split("/")[2]
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return AzureMlRefused(
                f"{self._who}: the certificate of {host} is not trusted, so nothing was asked: somebody stands in between, or the "
                "authority that signed it is not known here. Set the worker's environment variable SSL_CERT_FILE to a file of "
                "the certificates to trust, as PEM."
            )
        return AzureMlError(f"{self._who}: {host} does not answer ({type(error).__name__}).")

    def failure(
        self, method: str, path: str, status: int, content: Any, retry_after: str | None, is_stale: bool
    ) -> AmlDataError:
        """What an answer means.

        :param content: Its JSON; empty when there is none.
        :param is_stale: Whether the token was refused, and a new one may help.
        """
        said = content.get("error") if isinstance(content.get("error"), dict) else {}
        code, message = str(said.get("code") or ""), _message(said)
        what = f"{'read' if method == 'GET' else 'write'} {path!r}" if path else "read the workspace"
        answered = f"It answered {status} {code}".rstrip() + (f": {message}" if message else "") + "."
        if is_stale:
            return AzureMlError(f"{self._who}: the token is not accepted any more; signing in anew. {answered}")
        if status >= 500 or status in _TRY_AGAIN:
            busy = AzureMlError(f"{self._who}: the service is busy or failed when asked to {what}. {answered}")
            busy.retry_after_seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
            return busy
        if code in _MISSING_ABOVE:
            key = _MISSING_ABOVE[code]
            value = getattr(self._workspace, key)
            return self._refused(
                status,
                f"{self._who}: there is no {key} {value!r} that this identity sees. Correct the connection. {answered}",
            )
        if status == 404:
            return self._not_found(path, answered)
        if status == 401:
            return self._refused(
                status,
                f"{self._who}: the token of this identity is not accepted. Correct the connection: its cloud, tenant_id, "
                f"login and password must belong to the workspace's tenant. {answered}",
            )
        if status == 403:
            return self._refused(status, f"{self._who}: no permission to {what}. {_ROLE}. {answered}")
        return self._refused(status, f"{self._who}: cannot {what}. {answered}")

    def _not_found(self, path: str, answered: str) -> AmlDataError:
        if path and self._workspace_exists():
            return self._named(path)
        return self._refused(
            404,
            f"{self._who}: there is no such workspace in resource group {self._workspace.resource_group!r} of subscription "
            f"{self._workspace.subscription_id!r}. Correct the connection. {answered}",
        )

    def _workspace_exists(self) -> bool:
        """Whether the workspace is there: what lies below one that is not is answered with 404 as well."""
        if not self._is_known:
            try:
                self._workspace.get("", WORKSPACES)
            except AzureMlRefused as error:
                if error.status == 404:
                    return False
            self._is_known = True
        return True

    def _named(self, path: str) -> AzureMlNotFound:
        collection, *names = path.strip("/").split("/")
        if collection == "experiments":
            collection, *names = names[1:]
        name = names[0] if names else collection
        if len(names) > 2 and names[1] == "versions":
            name += f":{names[2]}"
        return AzureMlNotFound(_COLLECTIONS.get(collection, path), name, self._workspace.workspace_name)

    def with_known_names(self, path: str, error: AzureMlNotFound) -> AzureMlNotFound:
        """The same error, which says what there is, where that is a short list."""
        collection, *names = path.strip("/").split("/")
        return AzureMlNotFound(error.what, error.name, error.workspace, self._known(collection, names))

    def _known(self, collection: str, names: list[str]) -> list[str] | None:
        """Names in a collection; versions of a name that is there."""
        version = _LISTED.get(collection)
        if version is None or not names:
            return None
        try:
            found = [str(each["name"]) for each in self._workspace.pages(f"/{collection}", version)]
            if len(names) > 1 and names[0] in found:
                versions = self._workspace.pages(f"/{collection}/{names[0]}/versions", version)
                return [f"{names[0]}:{each['name']}" for each in versions]
        except AmlDataError:  # the error to tell is the one that made us look
            return None
        return found

    @staticmethod
    def _refused(status: int, message: str) -> AzureMlRefused:
        error = AzureMlRefused(message)
        error.status = status
        return error


def _message(said: Any) -> str:
    """What the service says, in one line: its message, and those of its details."""
    details = said.get("details") or ()
    texts = [said.get("message"), *(each.get("message") for each in details if isinstance(each, dict))]
    lines = [str(each).strip().partition("\n")[0].rstrip(".") for each in texts if each]
    return ": ".join(dict.fromkeys(lines))
