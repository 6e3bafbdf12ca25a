"""What this package tells Airflow about itself."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata: its commands, and its connection type with the form shown in the UI."""
    return {
        "package-name": "airflow-aml-data",
        "name": "Azure ML data",
        "description": "Azure ML SDK v1 pipelines on Airflow: datasets in, outputs handed from step to step.",
        "versions": ["0.1.0"],
        "cli": ["airflow_aml_data.cli.get_cli_commands"],
        "connection-types": [
            {
                "connection-type": "azureml",
                "hook-name": "Azure ML workspace",
                "hook-class-name": "airflow_aml_data.hooks.workspace.AmlWorkspaceHook",
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "schema", "port", "extra"],
                    "relabeling": {"login": "Client ID", "password": "Client secret"},
                    "placeholders": {
                        "login": "of a service principal for Azure ML; empty: the identity of the machine",
                        "password": "of that service principal",
                    },
                },
                "conn-fields": {
                    "datastores": {
                        "label": "Datastores",
                        "description": (
                            "JSON: each datastore's name, kind and options, such as "
                            '{"training_data": {"kind": "local", "root": "/data/training"}, '
                            '"blobs": {"kind": "azure_blob", "container_name": "data", "conn_id": "my_wasb"}, '
                            '"lake": {"kind": "azure_data_lake_gen2", "filesystem": "raw", "conn_id": "my_adls"}, '
                            '"share": {"kind": "azure_file", "file_share_name": "team", "conn_id": "my_fileshare"}}. '
                            "conn_id: an Airflow connection of type wasb, adls or azure_fileshare, each good for any kind; "
                            "without it, account_name, and the identity of the machine. "
                            "Empty: workspaceblobstore, a folder under AIRFLOW_HOME."
                        ),
                        "schema": {"type": ["string", "null"], "format": "multiline"},
                    },
                    "default_datastore": {
                        "label": "Default datastore",
                        "description": "Where outputs go that name no destination. Empty: the first one above.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "catalog_conn_id": {
                        "label": "Catalog connection",
                        "description": (
                            "Id of a postgres connection that holds the catalog of datasets and outputs. "
                            "Empty: an SQLite file under AIRFLOW_HOME."
                        ),
                        "schema": {"type": ["string", "null"]},
                    },
                    "catalog_connection_string": {
                        "label": "Catalog connection string",
                        "description": "SQLAlchemy URL of the catalog's database, instead of a catalog connection.",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "mount_fallback": {
                        "label": "Where a machine cannot mount",
                        "description": (
                            "download (also when empty): inputs in mount mode are downloaded, with a warning, and outputs stored when "
                            "the script ends. fail: the step fails."
                        ),
                        "schema": {"type": ["string", "null"], "enum": ["download", "fail", None]},
                    },
                    "subscription_id": {
                        "label": "Subscription ID",
                        "description": (
                            "Azure subscription of the Azure ML workspace, and of storage accounts that get lifecycle rules."
                        ),
                        "schema": {"type": ["string", "null"]},
                    },
                    "resource_group": {
                        "label": "Resource group",
                        "description": "Resource group of the Azure ML workspace, and of those storage accounts.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "workspace_name": {
                        "label": "Workspace name",
                        "description": (
                            "Name of the Azure ML workspace. With subscription and resource group, its datastores and data assets are "
                            "known here, and steps can run on its compute."
                        ),
                        "schema": {"type": ["string", "null"]},
                    },
                    "tenant_id": {
                        "label": "Tenant ID",
                        "description": "Of the service principal whose client ID and client secret are above.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "managed_identity_client_id": {
                        "label": "Managed identity client ID",
                        "description": "Without a service principal: which of the machine's managed identities signs in.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "workload_identity_tenant_id": {
                        "label": "Workload identity tenant ID",
                        "description": "Without a service principal: the tenant of the workload identity. Empty: the machine's.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "cloud": {
                        "label": "Azure cloud",
                        "description": "Cloud of the Azure ML workspace. Empty: public.",
                        "schema": {"type": ["string", "null"], "enum": ["public", "us_government", "china", None]},
                    },
                },
            }
        ],
    }
