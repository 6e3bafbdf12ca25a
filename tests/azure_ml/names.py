"""How the workspace and what is in it are called."""

from __future__ import annotations

import re

SUBSCRIPTION = "33333333-3333-3333-3333-333333333333"
GROUP = "data"
WORKSPACE = "team"
REGION = "eastus"
API_HOST = f"{REGION}.api.azureml.ms"

WORKSPACE_ID = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/"
    f"Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
)
LONG = f"azureml://subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}/workspaces/{WORKSPACE}/"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}")

_LONG = re.compile(re.escape(LONG), re.IGNORECASE)


def long_uri(uri: str) -> str:
    """A URI as the service answers it: that of a datastore names the workspace."""
    return re.sub(r"^azureml://(?=datastores/)", LONG, uri)


def short_uri(uri: str) -> str:
    """A URI without the name of this workspace."""
    return _LONG.sub("azureml://", uri)


def resource_id(*parts: str) -> str:
    """The ARM id of something in the workspace.

    :param parts: Kinds and names in turn.
    """
    return "/".join([WORKSPACE_ID, *parts])


def parts_of(resource: str) -> list[str]:
    """Kinds and names in turn, from the ARM id of something in this workspace; nothing for any other text."""
    head, rest = resource[: len(WORKSPACE_ID) + 1], resource[len(WORKSPACE_ID) + 1 :]
    return rest.split("/") if head.lower() == WORKSPACE_ID.lower() + "/" else []
