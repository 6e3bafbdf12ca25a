"""The operator that has Azure itself delete intermediate data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_aml_data.core.storage import retry
from airflow_aml_data.errors import UserError
from airflow_aml_data.operators.retention import connect

if TYPE_CHECKING:
    from airflow.sdk import Context


class LifecyclePolicyOperator(BaseOperator):
    """Write a rule into the lifecycle policy of a storage account, by which Azure deletes intermediate data of a datastore.

    Returns the rule as the service has it, as plain JSON. The account's other rules stay; those of them that would harm registered
    data, or outputs sooner than they may go, are warnings in the log.

    Azure deletes by the files' last change alone. It asks nobody, and knows neither who reads an output nor what is registered later:
    so the rule is refused for the default datastore, and where something in the folders is registered, pinned or kept for longer.

    The identity of the datastore's connection needs the role *Storage Account Contributor*, or read and write of
    ``Microsoft.Storage/storageAccounts/managementPolicies``; account keys and SAS tokens cannot do that.

    :param datastore: Name of a datastore in Blob storage or Data Lake Gen2; not the default one. (templated)
    :param days: After the files' last change; 30 and more. (templated)
    :param prefixes: Folders on the datastore; None: ``dataset``, where outputs go whose destination names no path. (templated)
    :param subscription_id: Of the storage account; empty: the workspace's. (templated)
    :param resource_group: Likewise. (templated)
    :param is_dry_run: Check everything, ask for the account's policy, and write nothing: what is deleted cannot be brought back, so
        writing is asked for, as with :class:`.SweepOperator`. (templated)
    :param conn_id: Airflow connection of type ``azureml``; None: the default one.

    Source: the article, on lifecycle policies for datastores that are not the default one.
    """

    template_fields: Sequence[str] = (
        "datastore",
        "days",
        "prefixes",
        "subscription_id",
        "resource_group",
        "is_dry_run",
    )
    ui_color = "#f9dcd8"

    def __init__(
        self,
        *,
        datastore: str,
        days: int | str = 30,
        prefixes: Sequence[str] | str | None = None,
        subscription_id: str = "",
        resource_group: str = "",
        is_dry_run: bool | str = True,
        conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.datastore = datastore
        self.days = days
        self.prefixes = prefixes
        self.subscription_id = subscription_id
        self.resource_group = resource_group
        self.is_dry_run = is_dry_run
        self.conn_id = conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        from airflow_aml_data.core.retention.account_policy import write_rule
        from airflow_aml_data.core.retention.lifecycle import INTERMEDIATE_PREFIXES

        retry.begin()
        is_dry_run = str(self.is_dry_run) != "False"
        prefixes = INTERMEDIATE_PREFIXES if self.prefixes is None else self.prefixes
        try:
            change = write_rule(
                connect(self.conn_id),
                self.datastore,
                days=self.days,
                prefixes=[prefixes] if isinstance(prefixes, str) else prefixes,
                subscription_id=self.subscription_id,
                resource_group=self.resource_group,
                is_dry_run=is_dry_run,
            )
        except UserError as error:
            raise AirflowFailException(str(error)) from error
        for each in change.findings:
            self.log.warning("%s", each)
        done = (
            "is there already" if not change.is_new else "would be written (dry run)" if is_dry_run else "was written"
        )
        self.log.info("Lifecycle rule %r %s: %s", change.rule["name"], done, change.rule["definition"])
        return change.rule

    def on_kill(self) -> None:
        retry.cancel()
