"""Lifecycle policies of storage accounts, by the SDK as it is, against a control plane that takes only what Azure publishes."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from airflow_aml_data import Workspace
from airflow_aml_data.core.catalog import CommittedOutput, NewDatasetVersion, NewOutput
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.retention.account_policy import RuleChange, lint_account, write_rule
from airflow_aml_data.core.retention.lifecycle import rule_for
from airflow_aml_data.core.storage.azure.account import azure_account
from airflow_aml_data.core.storage.azure.management import ManagementPolicies
from airflow_aml_data.core.storage.base import DatastoreConfig
from airflow_aml_data.errors import (
    DatastoreNotFound,
    InvalidConfiguration,
    InvalidDeclaration,
    MissingExtra,
    StorageError,
    StorageRefused,
    UnsupportedDatastore,
)
from tests.azure_management import GROUP, SUBSCRIPTION, AzureManagement, airflow_workspace, principal
from tests.azurite.login import SECRET
from tests.core.steps import Steps
from tests.core.test_lifecycle import ours, theirs

pytestmark = pytest.mark.slow

KEY = "c2VjcmV0IGtleQ=="


def declare(monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any] | None = None, **more: Any) -> None:
    for name, value in airflow_workspace(connection, **more).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def connected(steps: Steps, management: AzureManagement, monkeypatch: pytest.MonkeyPatch) -> ConnectedWorkspace:
    declare(monkeypatch)
    return Workspace().connect()


def write(connected: ConnectedWorkspace, datastore: str = "scratch", **more: Any) -> RuleChange:
    return write_rule(connected, datastore, **{"is_dry_run": False, **more})


def output(connected: ConnectedWorkspace, path: str, datastore: str = "scratch", **more: Any) -> str:
    """A committed output, as far as the catalog knows; its id."""
    run = StepRun(dag_id="dag", run_id=path, task_id="step")
    catalog = connected.catalog
    catalog.begin_outputs(
        run, [NewOutput(name="out", datastore=datastore, path=path, mode="upload", **more)], lease_seconds=60
    )
    done = CommittedOutput(
        name="out", files=1, size_bytes=1, manifest_path=".aml_data/m", manifest_digest="d", changed_at=catalog.now()
    )
    catalog.commit_outputs(run, [done], [])
    return f"{run.id}/out"


def register(connected: ConnectedWorkspace, name: str = "kept", **more: Any) -> None:
    new = NewDatasetVersion(name=name, **{"definition": {}, **more})
    connected.catalog.register_dataset(new, create_new_version=True)


def policies(account: str = "first", **more: Any) -> ManagementPolicies:
    """Past the workspace."""
    fields: dict[str, Any] = principal(account)
    connection = ConnectionFields(conn_id="store", **fields)
    config = DatastoreConfig(name="d", kind="azure_blob", options={}, connection=connection)
    return ManagementPolicies(
        azure_account(config, "blob"), **{"subscription_id": SUBSCRIPTION, "resource_group": GROUP, **more}
    )


def test_a_policy_is_created_and_read_back(connected, management):
    change = write(connected)

    assert change == RuleChange(ours("scratch"), True, [])
    assert management.policies == {"first": {"rules": [ours("scratch")]}, "second": None}
    assert policies().read() == {"rules": [ours("scratch")]}
    assert management.requests[:3] == [f"management.azure.com {each} first" for each in ("GET", "PUT", "GET")]


def test_rules_that_are_not_ours_stay_and_ours_is_replaced(connected, management):
    others = [theirs("elsewhere/", name="z", filters={"blobIndexMatch": []}), theirs("logs/", name="a", enabled=False)]
    management.policies["first"] = {"rules": [others[0], ours("scratch", "old", days=365), others[1]]}

    change = write(connected, days="90", prefixes=["dataset", "tmp"])

    written = management.policies["first"]["rules"]
    assert written == [others[0], ours("scratch", "dataset", "tmp", days=90), others[1]]
    assert [list(each) for each in written[::2]] == [list(each) for each in others]
    assert change.rule == written[1]


def test_each_container_has_a_rule_of_its_own(connected, management):
    for name in ("scratch", "lake", "other"):
        write(connected, name)

    assert management.policies["first"]["rules"] == [
        ours("scratch"),
        rule_for("lake", ["dataset"], 30, is_hierarchical=True),
    ]
    assert management.policies["second"]["rules"] == [ours("scratch")]


def test_a_rule_that_is_there_is_not_written_again(connected, management):
    write(connected)
    before = len(management.requests)

    assert write(connected) == RuleChange(ours("scratch"), False, [])
    assert management.requests[before:] == ["management.azure.com GET first"]


def test_a_dry_run_checks_everything_and_writes_nothing(connected, management):
    change = write(connected, is_dry_run=True)

    assert change == RuleChange(ours("scratch"), True, [])
    assert management.requests == ["management.azure.com GET first"]
    assert management.policies["first"] is None


@pytest.mark.parametrize("datastore", ["main", "MAIN", "main_again"])
def test_the_default_datastore_is_refused_under_any_of_its_names(connected, management, datastore):
    """The article: a lifecycle policy for intermediate data is possible on a datastore that is not the default one."""
    with pytest.raises(
        InvalidDeclaration, match=r"default one, where a lifecycle rule is not allowed: .* another datastore"
    ):
        write(connected, datastore)
    assert management.requests == []


def test_a_datastore_that_somebody_made_the_default_one_is_refused_and_the_earlier_one_is_not(connected, management):
    connected.catalog.set_default_datastore("scratch", by="ann")

    with pytest.raises(InvalidDeclaration, match="Datastore 'scratch' is the workspace's default one"):
        write(Workspace().connect())
    write(Workspace().connect(), "main")


@pytest.mark.parametrize(("datastore", "kind"), [("share", "azure_file"), ("folder", "local")])
def test_file_shares_and_folders_have_no_lifecycle_rules(connected, management, datastore, kind):
    with pytest.raises(
        UnsupportedDatastore, match=f"is of kind '{kind}', and Azure has lifecycle rules for azure_blob and"
    ):
        write(connected, datastore)
    with pytest.raises(DatastoreNotFound):
        write(connected, "nowhere")
    assert management.requests == []


def test_too_short_a_period_is_refused_before_anybody_is_asked(connected, management):
    with pytest.raises(InvalidDeclaration, match="days is 29"):
        write(connected, days=29)
    assert management.requests == []


@pytest.mark.parametrize("how", ["output", "folder", "above", "another name", "pinned", "kept", "longer"])
def test_a_prefix_with_something_that_has_to_stay_is_refused(connected, management, how):
    output(connected, "dataset/harmless/out")
    if how == "output":
        register(connected, definition={"sources": [{"output_id": output(connected, "dataset/r/out")}]})
    elif how == "folder":
        register(connected, definition={"sources": [{"datastore": "scratch", "path": "dataset/r/*.csv"}]})
    elif how == "above":
        register(connected, definition={"datastore": "scratch", "path": ""})
    elif how == "another name":
        register(connected, definition={"datastore": "scratch_again", "path": "dataset/r"})
    elif how == "pinned":
        connected.catalog.pin_output(output(connected, "dataset/r/out"), by="ann", reason="audit")
    elif how == "kept":
        output(connected, "dataset/r/out", keep=True)
    else:
        output(connected, "dataset/r/out", retention_days=31)

    with pytest.raises(
        InvalidDeclaration, match=r"The rule is not written, .* Lifecycle rule 'airflow-aml-data-scratch' deletes"
    ):
        write(connected)
    assert management.requests == []
    write(connected, prefixes=["tmp"]) if how != "above" else None


def test_rules_of_others_that_would_harm_something_are_told_when_ours_is_written(connected, management):
    register(connected, definition={"datastore": "lake", "path": "raw"})
    management.policies["first"] = {"rules": [theirs("lake/raw/")]}

    (finding,) = write(connected).findings

    assert "'theirs' deletes files after 1 days, and among them are data of registered datasets" in str(finding)


def test_lint_finds_what_a_policy_would_delete_and_is_silent_about_the_rest(connected, management):
    register(connected, definition={"datastore": "main", "path": "raw/*.csv"})
    register(connected, definition={"datastore": "other", "path": "raw"}, name="on another account")
    output(connected, "dataset/r/out", "main")
    output(connected, "dataset/gone/out", "folder")
    management.policies["first"] = {
        "rules": [
            theirs("logs/", "main/tmp/", "scratch/raw/", name="harmless"),
            theirs("main/dataset/", name="patient", delete={"daysAfterModificationGreaterThan": 30}),
            theirs("main/raw/", name="raw", tierToArchive={"daysAfterModificationGreaterThan": 90}),
            theirs("main/", name="all"),
        ]
    }

    found = lint_account(connected, "scratch")

    assert [(each.rule, each.action, each.kind, each.examples) for each in found] == [
        ("raw", "archive", "registered", ("dataset 'kept' version 1",)),
        ("all", "delete", "manifests", ("main/.aml_data",)),
        ("all", "delete", "output", (connected.catalog.find_outputs()[1].id,)),
        ("all", "delete", "registered", ("dataset 'kept' version 1",)),
    ]
    assert lint_account(connected, "other") == []
    assert {each.partition(" ")[2] for each in management.requests} == {"GET first", "GET second"}


def test_a_missing_role_is_one_clear_error(connected, management):
    management.may = {"GET"}
    with pytest.raises(StorageRefused) as refused:
        write(connected)
    assert str(refused.value) == (
        f"No permission to write the lifecycle policy of storage account 'first' in resource group 'data' of subscription "
        f"'{SUBSCRIPTION}', connection 'store'. Needed: role 'Storage Account Contributor' or the permission "
        "Microsoft.Storage/storageAccounts/managementPolicies/write; roles for data, such as 'Storage Blob Data Contributor', do not "
        "give it. It answered 403 AuthorizationFailed: The client '22222222-2222-2222-2222-222222222222' does not have authorization."
    )
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"resource_group": "nowhere"}, "ResourceGroupNotFound"),
        ({"subscription_id": "44444444-4444-4444-4444-444444444444"}, "SubscriptionNotFound"),
    ],
)
def test_a_wrong_address_of_the_account_is_one_clear_error(connected, more, code):
    with pytest.raises(
        StorageRefused, match=rf"There is no storage account 'first' .* Correct subscription_id and .* 404 {code}"
    ):
        write(connected, **more)


def test_an_account_that_is_not_there_is_one_clear_error(management):
    with pytest.raises(StorageRefused, match=r"There is no storage account 'third' .* ResourceNotFound"):
        policies("third").read()


@pytest.mark.parametrize("name", ["subscription_id", "resource_group"])
def test_who_says_nowhere_where_the_account_is_is_told_what_is_missing(steps, management, monkeypatch, name):
    declare(monkeypatch, **{name: ""})

    with pytest.raises(
        InvalidConfiguration, match=f"in which {name} storage account 'first' is, .* Give {name} here, or in the"
    ):
        write(Workspace().connect())
    write(Workspace().connect(), **{name: {"subscription_id": SUBSCRIPTION, "resource_group": GROUP}[name]})


@pytest.mark.parametrize(
    "signs_in",
    [{"password": KEY}, {"extra": {"sas_token": "sv=2025-01-05&sp=rwdl&sig=c2VjcmV0%3D"}}],
    ids=["key", "sas"],
)
def test_keys_and_sas_tokens_cannot_reach_a_policy_and_are_not_shown(steps, management, monkeypatch, signs_in):
    declare(monkeypatch, {"conn_type": "wasb", "host": "first", **signs_in})

    with pytest.raises(
        InvalidConfiguration, match=r"connection 'store' has an account key or a SAS token, .* role 'Storage Acc"
    ) as error:
        write(Workspace().connect())
    assert "c2VjcmV0" not in str(error.value)
    assert management.requests == []


def test_a_busy_service_is_asked_again_when_it_says(connected, management):
    management.failures = [(503, {}), (429, {"Retry-After": "0"}), (409, {})]

    assert write(connected).rule == ours("scratch")
    assert management.failures == []


def test_a_token_that_is_not_for_the_control_plane_is_refused_and_no_secret_shows(connected, management):
    management.takes_tokens = False

    with pytest.raises(StorageRefused, match="It answered 401 InvalidAuthenticationToken") as error:
        write(connected)
    assert SECRET not in str(error.value)
    assert not any(token in str(error.value) for token in management.login.tokens)


def test_a_policy_that_somebody_else_wrote_at_the_same_time_is_an_error(connected, management):
    management.policies["first"] = {"rules": [theirs("logs/")]}
    management.meddle = lambda policy: {"rules": policy["rules"][:1]}

    with pytest.raises(
        StorageError, match="lacks airflow-aml-data-scratch now: somebody else wrote it at the same time"
    ):
        write(connected)


def test_a_certificate_nobody_trusts_is_an_error_at_once(connected, management, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")

    credential = policies().account.token_credential()
    monkeypatch.setattr(
        type(credential),
        "get_token",
        lambda *_, **__: AccessToken("t", 2**40),
    )
    with pytest.raises(StorageRefused, match="The certificate of Azure's control plane is not trusted"):
        policies().read()


@pytest.mark.parametrize(
    ("end", "authority", "host"),
    [
        ("core.usgovcloudapi.net", "login.microsoftonline.us", "management.usgovcloudapi.net"),
        ("core.chinacloudapi.cn", "login.chinacloudapi.cn", "management.chinacloudapi.cn"),
    ],
)
def test_accounts_of_other_clouds_are_asked_there(steps, management, monkeypatch, end, authority, host):
    account = f"https://first.blob.{end}"
    declare(monkeypatch, principal(account, client_secret_auth_config={"authority": authority}))

    write(Workspace().connect())

    assert {each.partition(" ")[0] for each in management.requests} == {host}


def test_an_account_of_an_unknown_cloud_is_refused(steps, management, monkeypatch):
    declare(monkeypatch, principal("https://first.blob.example.com"))

    with pytest.raises(
        InvalidConfiguration, match=r"is at 'first.blob.example.com', and nobody knows .* core.windows.net"
    ):
        write(Workspace().connect())


def test_without_the_extra_its_name_is_told(management, monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.mgmt.storage", None)

    with pytest.raises(
        MissingExtra, match=r'A lifecycle policy needs an extra: pip install "airflow-aml-data\[azure\]"'
    ):
        policies().read()


def changed(**more: Any) -> dict[str, Any]:
    return {**theirs("a/"), **more}


def with_actions(**actions: Any) -> dict[str, Any]:
    rule = copy.deepcopy(theirs("a/"))
    rule["definition"]["actions"] = actions
    return rule


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([changed(color="red")], "color is no field of ManagementPolicyRule"),
        ([{"name": "a", "type": "Lifecycle"}], "definition is missing"),
        ([changed(type="Lifecicle")], "'Lifecicle', not one of"),
        ([changed(enabled="yes")], "not bool"),
        ([changed(name="no_underscore")], "is not alphanumeric"),
        ([theirs("a/"), theirs("b/")], "'theirs' is used twice"),
        ([theirs("a/", name=f"r{i}") for i in range(101)], "1 to 100 rules, not 101"),
        ([theirs(*map(str, range(11)))], "more than 10 conditions"),
        ([theirs("a/", filters={"blobTypes": ["blob"]})], "has blob types"),
        ([theirs("a/", delete={"daysAfterModificationGreaterThan": 30.5})], "not a whole number"),
        ([theirs("a/", delete={"daysAfterModificationGreaterThan": "30"})], "not a whole number"),
        ([theirs("a/", delete={"daysAfterModificationGreaterThan": -1})], "not a whole number"),
        ([theirs("a/", delete={"days": 30})], "days is no field of DateAfterModification"),
        ([theirs("a/", delete={"daysAfterModificationGreaterThan": 1, "daysAfterCreationGreaterThan": 1})], "or several"),
        ([with_actions(snapshot={"delete": {}})], "daysAfterCreationGreaterThan is missing"),
        ([with_actions()], "has no action"),
    ],
)  # fmt: skip
def test_what_azure_does_not_publish_is_refused_and_the_answer_is_told(management, rules, message):
    with pytest.raises(
        StorageRefused, match=r"Cannot write the lifecycle policy of .* 400 InvalidRequestPropertyValue: "
    ) as error:
        policies().write({"rules": rules})
    assert message in str(error.value)
    assert management.policies["first"] is None
