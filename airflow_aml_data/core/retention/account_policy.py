"""The lifecycle policy of the storage account that a datastore lies on: write our rule into it, and see what its rules would harm."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.identity import FLOOR_DAYS, RESERVED_FOLDER
from airflow_aml_data.core.retention.lifecycle import (
    INTERMEDIATE_PREFIXES,
    KeptPlace,
    LifecycleFinding,
    lint,
    merge,
    refuse_harm,
    rule_for,
)
from airflow_aml_data.core.retention.registered import RegisteredData
from airflow_aml_data.errors import InvalidDeclaration, StorageError, UnsupportedDatastore

if TYPE_CHECKING:
    from airflow_aml_data.core.storage.azure.management import ManagementPolicies

_KINDS = ("azure_blob", "azure_data_lake_gen2")


class RuleChange(NamedTuple):
    """What became of a rule.

    :param rule: As the service has it; of a dry run, as it would be written.
    :param is_new: Whether it differs from what was there.
    :param findings: What the account's other rules would harm.
    """

    rule: dict[str, Any]
    is_new: bool
    findings: list[LifecycleFinding]


def write_rule(
    workspace: ConnectedWorkspace,
    datastore: str,
    *,
    days: int | str = FLOOR_DAYS,
    prefixes: Sequence[str] = INTERMEDIATE_PREFIXES,
    subscription_id: str = "",
    resource_group: str = "",
    is_dry_run: bool,
) -> RuleChange:
    """Have Azure delete files in some folders of a datastore, some days after their last change.

    The account's other rules stay as they are. A rule that was written for the container before is replaced; one container has one.

    :param datastore: Not the default one, nor another name for its container.
    :param days: 30 and more.
    :param prefixes: Folders on the datastore, with nothing in them that is registered, pinned or kept for more days.
    :param subscription_id: Of the storage account; empty: the workspace's, as its connection says. So is ``resource_group``.
    :param is_dry_run: Check everything against the account's policy, and write nothing.
    :raises UserError: when the rule would harm what has to stay, or the service refuses it.
    :raises StorageError: when the service fails, or has other rules afterwards than those that were written.
    """
    _refuse_default(workspace, workspace.datastore_name(datastore))
    name = _datastore_in_blob_storage(workspace, datastore)
    account, _, container = workspace.storage(name).location.rpartition("/")
    is_hierarchical = workspace.datastores[name].kind == "azure_data_lake_gen2"
    rule = rule_for(container, prefixes, days, is_hierarchical=is_hierarchical)
    kept = kept_places(workspace, account)
    refuse_harm(rule, kept)
    policies = _policies(workspace, name, subscription_id, resource_group)
    before = policies.read()
    wanted = merge(before, rule)
    change = RuleChange(rule, wanted != before, lint(wanted, kept))
    if is_dry_run or not change.is_new:
        return change
    policies.write(wanted)
    there = {each["name"]: each for each in policies.read()["rules"]}
    if missing := [each["name"] for each in wanted["rules"] if each["name"] not in there]:
        raise StorageError(
            f"{policies}: the lifecycle policy was written, and lacks {', '.join(missing)} now: somebody else wrote it at the same time."
        )
    return change._replace(rule=there[rule["name"]])


def lint_account(
    workspace: ConnectedWorkspace, datastore: str, *, subscription_id: str = "", resource_group: str = ""
) -> list[LifecycleFinding]:
    """What the lifecycle policy of a datastore's storage account would delete or archive that has to stay; nothing is written.

    All datastores of the workspace that lie on the account are looked at, the default one too. Parameters as of :func:`write_rule`.
    """
    name = _datastore_in_blob_storage(workspace, datastore)
    policy = _policies(workspace, name, subscription_id, resource_group).read()
    return lint(policy, kept_places(workspace, workspace.storage(name).location.rpartition("/")[0]))


def kept_places(workspace: ConnectedWorkspace, account: str) -> list[KeptPlace]:
    """What has to stay on a storage account: what datasets read, outputs for as long as they are kept, and manifests.

    :param account: Address of its Blob service, as locations of datastores begin.
    """
    registered = RegisteredData.of(workspace, workspace.catalog.registered_places())
    root = f"{account}/"
    containers = {
        name: location.removeprefix(root)
        for name, location in registered.locations.items()
        if location.startswith(root)
    }
    places = {
        KeptPlace(f"{each}/{RESERVED_FOLDER}", "manifests", f"{each}/{RESERVED_FOLDER}") for each in containers.values()
    }
    places |= {
        KeptPlace(address.removeprefix(root), "registered", f"dataset {dataset}")
        for address, dataset in registered.addresses.items()
        if address.startswith(root)
    }
    soon = workspace.catalog.now() + timedelta(days=1)  # the store's clock, which dates changes, may be ahead
    with workspace.catalog.candidates(list(containers), changed_before=soon, begun_before=soon) as outputs:
        for each in outputs:
            path = f"{containers[each.datastore]}/{each.path}"
            if dataset := registered.outputs.get(each.id):
                places.add(KeptPlace(path, "registered", f"dataset {dataset}"))
            elif each.state != "abandoned" and each.pin:
                places.add(KeptPlace(path, "pinned", each.id))
            elif each.state in ("writing", "committed"):
                places.add(KeptPlace(path, "output", each.id, each.retention_days or FLOOR_DAYS))
    return list(places)


def _datastore_in_blob_storage(workspace: ConnectedWorkspace, datastore: str) -> str:
    name = workspace.datastore_name(datastore)
    if (kind := workspace.datastores[name].kind) not in _KINDS:
        raise UnsupportedDatastore(
            f"Datastore {name!r} is of kind {kind!r}, and Azure has lifecycle rules for {' and '.join(_KINDS)} only. The retention DAG "
            "deletes from every kind of datastore."
        )
    return name


def _refuse_default(workspace: ConnectedWorkspace, name: str) -> None:
    default = workspace.datastore_name(None)
    if workspace.storage(name).location == workspace.storage(default).location:
        other = "" if name == default else f" lies in the same place as {default!r}, which"
        raise InvalidDeclaration(
            f"Datastore {name!r}{other} is the workspace's default one, where a lifecycle rule is not allowed: everything goes there that "
            "names no destination, also what has to stay. Send intermediate outputs to another datastore, "
            'OutputFileDatasetConfig(destination=("NAME", "dataset/{run-id}/{output-name}")), and write the rule for that.'
        )


def _policies(
    workspace: ConnectedWorkspace, name: str, subscription_id: str, resource_group: str
) -> ManagementPolicies:
    from airflow_aml_data.core.storage.azure.account import azure_account
    from airflow_aml_data.core.storage.azure.management import ManagementPolicies

    return ManagementPolicies(
        azure_account(workspace.datastore_config(name), "blob"),
        subscription_id=subscription_id or workspace.config.subscription_id,
        resource_group=resource_group or workspace.config.resource_group,
    )
