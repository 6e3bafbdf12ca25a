"""The Azure ML workspace that a connection names: who signs in, what is asked, and what its refusals mean."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_aml_data import Workspace
from airflow_aml_data.core.azureml.control_plane import ControlPlane
from airflow_aml_data.errors import (
    AzureMlError,
    AzureMlNotFound,
    AzureMlRefused,
    InvalidConfiguration,
    MissingExtra,
    UserError,
)
from airflow_aml_data.hooks.workspace import AmlWorkspaceHook
from tests.azure_ml import GROUP, SUBSCRIPTION, WORKSPACE_ID, AzureMl, Failure
from tests.azure_ml.workspace.connected import connect, connect_as_machine
from tests.azurite.login import ASSERTION, CLIENT, IDENTITY_HEADER, SECRET, TENANT

pytestmark = pytest.mark.slow

_COMPUTES = "2023-08-01-preview"


def control_plane(workspace: Workspace) -> ControlPlane:
    return workspace.connect().azureml


def location(workspace: Workspace) -> str:
    """Where the workspace says it is, asked by whoever the connection signs in as."""
    return str(control_plane(workspace).get("", "2024-10-01")["location"])


def test_a_service_principal_of_the_connection_signs_in(azure_ml: AzureMl, connected: Workspace) -> None:
    assert location(connected) == "eastus"
    assert azure_ml.login.issued[-1] == "secret"


def test_the_identity_of_the_environment_signs_in_without_one(
    azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TENANT_ID": TENANT, "CLIENT_ID": CLIENT, "CLIENT_SECRET": SECRET}.items():
        monkeypatch.setenv(f"AZURE_{name}", value)
    assert location(connect_as_machine(monkeypatch)) == "eastus"
    assert azure_ml.login.issued[-1] == "secret"


@pytest.mark.parametrize("client", ["", CLIENT], ids=["the only one", "one by its client id"])
def test_a_managed_identity_signs_in(
    azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure_ml.login.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
    assert location(connect_as_machine(monkeypatch, managed_identity_client_id=client)) == "eastus"
    assert azure_ml.login.issued[-1] == "managed"


def test_a_workload_identity_signs_in(
    azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(ASSERTION)
    for name, value in {"FEDERATED_TOKEN_FILE": str(tmp_path / "token"), "CLIENT_ID": CLIENT, "TENANT_ID": "x"}.items():
        monkeypatch.setenv(f"AZURE_{name}", value)
    workspace = connect_as_machine(monkeypatch, managed_identity_client_id=CLIENT, workload_identity_tenant_id=TENANT)
    assert location(workspace) == "eastus"
    assert azure_ml.login.issued[-1] == "workload"


@pytest.mark.parametrize(
    ("cloud", "host"),
    [
        ("", "management.azure.com"),
        ("public", "management.azure.com"),
        ("us_government", "management.usgovcloudapi.net"),
        ("china", "management.chinacloudapi.cn"),
    ],
)
def test_each_cloud_has_hosts_of_its_own(
    azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch, cloud: str, host: str
) -> None:
    assert location(connect(monkeypatch, cloud=cloud)) == "eastus"
    assert {each.host for each in azure_ml.requests} == {host}


def test_nobody_to_sign_in_as_is_said(azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AzureMlRefused, match=r"workspace 'team', connection 'azureml_default': nobody to sign in as\."):
        location(connect_as_machine(monkeypatch))
    azure_ml.refused.clear()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password": "not the secret of the client"}, "AADSTS7000215"),
        ({"login": "22222222-2222-2222-2222-222222222229"}, "AADSTS700016"),
        ({"tenant_id": "11111111-1111-1111-1111-111111111119"}, "Unable to get authority configuration"),
    ],
)
def test_a_principal_that_is_refused_is_named_without_its_secret(
    azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], said: str
) -> None:
    with pytest.raises(AzureMlRefused, match=f"'azureml_default': signing in was refused.*{said}") as caught:
        location(connect(monkeypatch, **wrong))
    assert wrong.get("password", SECRET) not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"subscription_id": "33333333-3333-3333-3333-333333333339"},
            "there is no subscription_id '33333333-.*9' that",
        ),
        ({"resource_group": "other"}, "there is no resource_group 'other' that"),
        ({"workspace_name": "other"}, f"there is no such workspace in resource group '{GROUP}' of .*'{SUBSCRIPTION}'"),
    ],
)
def test_a_name_of_the_connection_that_is_wrong_is_said(
    azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], said: str
) -> None:
    workspace = connect(monkeypatch, **wrong)
    for path in ("", "/jobs/a", "/datastores/a/listSecrets"):
        with pytest.raises(AzureMlRefused, match=said):
            control_plane(workspace).get(path, "2024-10-01-preview")


def test_a_missing_role_is_said(azure_ml: AzureMl, connected: Workspace) -> None:
    azure_ml.may.remove("computes/read")
    with pytest.raises(
        AzureMlRefused, match=r"'azureml_default': no permission to read '/computes/x'.*'AzureML Data Scien"
    ):
        control_plane(connected).get("/computes/x", _COMPUTES)


def test_a_thing_that_is_not_there_is_named_with_those_that_are(azure_ml: AzureMl, connected: Workspace) -> None:
    with pytest.raises(AzureMlNotFound) as caught:
        control_plane(connected).get("/computes/cpu-clutser", _COMPUTES)
    assert str(caught.value) == (
        "Compute 'cpu-clutser' does not exist in Azure ML workspace 'team' (there are: cpu-cluster). Did you mean 'cpu-cluster'? "
        "Correct the name, or create it there."
    )
    with pytest.raises(AzureMlNotFound, match=r"Environment 'sklearn:9'|Environment 'nothing:9'"):
        control_plane(connected).get("/environments/nothing/versions/9", "2023-04-01")


def test_whether_a_thing_is_there_is_one_request(azure_ml: AzureMl, connected: Workspace) -> None:
    plane = control_plane(connected)
    assert plane.find("/computes/cpu-cluster", _COMPUTES)
    assert plane.find("/computes/none", _COMPUTES) is None
    assert plane.find("/computes/none", _COMPUTES) is None
    assert [each.path.removeprefix(WORKSPACE_ID) for each in azure_ml.requests] == [
        "/computes/cpu-cluster",
        "/computes/none",
        "",  # is it the workspace that is missing?
        "/computes/none",
    ]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(azure_ml: AzureMl, connected: Workspace, status: int) -> None:
    azure_ml.failures += [Failure(status), Failure(status)]
    assert location(connected) == "eastus"
    assert [each.status for each in azure_ml.requests] == [status, status, 200]


def test_a_busy_service_is_left_alone_as_long_as_it_asks(azure_ml: AzureMl, connected: Workspace) -> None:
    azure_ml.failures += [Failure(429, {"Retry-After": "1"})]
    before = time.monotonic()
    assert location(connected) == "eastus"
    assert time.monotonic() - before > 1.0


def test_a_token_that_is_taken_no_more_is_renewed_once(
    azure_ml: AzureMl, connected: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = control_plane(connected)
    plane.get("", "2024-10-01")
    monkeypatch.setattr(plane._access, "_signed_in_at", -1000.0)
    azure_ml.login.scopes.clear()  # every token is forgotten

    assert plane.get("", "2024-10-01")["location"] == "eastus"
    azure_ml.failures += [Failure(401)]
    with pytest.raises(
        AzureMlRefused, match=r"token of this identity is not accepted. Correct the connection: its cloud"
    ):
        plane.get("", "2024-10-01")


def test_a_list_is_read_page_after_page(azure_ml: AzureMl, connected: Workspace) -> None:
    azure_ml.page_size = 1
    found = [each["name"] for each in control_plane(connected).pages("/datastores", "2024-10-01-preview")]
    assert sorted(found) == ["workspaceartifactstore", "workspaceblobstore"]


def test_a_trigger_asks_without_keeping_its_loop_waiting(azure_ml: AzureMl, connected: Workspace) -> None:
    plane = control_plane(connected)

    async def ask() -> str:
        found = await plane.aget("/computes/cpu-cluster", _COMPUTES)
        with pytest.raises(AzureMlNotFound, match="Compute 'none'"):
            await plane.aget("/computes/none", _COMPUTES)
        azure_ml.failures.append(Failure(503, {"Retry-After": "7"}))
        with pytest.raises(AzureMlError) as caught:
            await plane.aget("/computes/cpu-cluster", _COMPUTES)
        assert caught.value.retry_after_seconds == 7.0
        return str(found["name"])

    assert asyncio.run(ask()) == "cpu-cluster"


def test_the_region_is_found_by_discovery_once(azure_ml: AzureMl, connected: Workspace) -> None:
    plane = control_plane(connected)
    assert (plane.regional_url, plane.regional_url) == ("https://eastus.api.azureml.ms",) * 2
    assert [each.path for each in azure_ml.requests].count("/discovery") == 1


def test_run_history_is_asked_at_the_region(azure_ml: AzureMl, connected: Workspace) -> None:
    with pytest.raises(AzureMlNotFound, match="Run 'nothing' does not exist in Azure ML workspace 'team'"):
        control_plane(connected).history("GET", "/runs/nothing/details")
    assert azure_ml.requests[-2].host == "eastus.api.azureml.ms"


def test_a_login_that_is_out_of_order_is_tried_again(
    azure_ml: AzureMl, connected: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_aml_data.core.storage.retry._ATTEMPTS", 2)
    monkeypatch.setattr(azure_ml.login, "broken", True)
    with pytest.raises(AzureMlError, match="'azureml_default': signing in failed") as caught:
        location(connected)
    assert caught.value.__notes__[0].startswith("Tried 2 times")


def test_a_host_that_does_not_answer_is_named(
    azure_ml: AzureMl, connected: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_aml_data.core.storage.retry._ATTEMPTS", 2)
    plane = control_plane(connected)
    plane.get("", "2024-10-01")
    plane._clients.clear()
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(AzureMlError, match=r"management.azure.com does not answer \(ConnectError\)"):
        plane.get("", "2024-10-01")


def test_a_certificate_that_nobody_knows_is_an_error_at_once(
    azure_ml: AzureMl, connected: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = control_plane(connected)
    plane._access.get_token("https://management.azure.com/.default")
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(AzureMlRefused, match=r"certificate of management.azure.com is not trusted.*SSL_CERT_FILE"):
        plane.get("", "2024-10-01")


@pytest.mark.parametrize("key", ["subscription_id", "resource_group", "workspace_name"])
def test_a_connection_that_does_not_name_all_three_is_not_connected(
    home: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    workspace = connect(monkeypatch, **{key: ""})
    assert workspace.get_default_datastore().name == "workspaceblobstore"
    with pytest.raises(InvalidConfiguration, match=f"'azureml_default' names no Azure ML workspace: it has no {key}"):
        control_plane(workspace)


def test_a_config_json_alone_connects_to_nothing(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = f'{{"subscription_id": "{SUBSCRIPTION}", "resource_group": "{GROUP}", "workspace_name": "team"}}'
    (tmp_path / "config.json").write_text(names)
    workspace = Workspace.from_config(str(tmp_path / "config.json"))
    assert (workspace.name, workspace.get_default_datastore().name) == ("team", "workspaceblobstore")
    with pytest.raises(InvalidConfiguration, match=r"names no Azure ML workspace: only config.json does"):
        control_plane(workspace)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tenant_id": ""}, "has login and password, and no 'tenant_id'. A service principal"),
        ({"login": ""}, "has password and 'tenant_id', and no login"),
        ({"cloud": "germany"}, "'cloud' is 'germany'. Allowed: public, us_government, china"),
        ({"client_secret": "x"}, "has 'client_secret' in its extra. Its place is the field 'password'"),
    ],
)
def test_a_half_identity_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=said) as caught:
        connect(monkeypatch, **fields).connect()
    assert SECRET not in str(caught.value)


def test_no_secret_is_in_a_repr(connected: Workspace) -> None:
    opened = connected.connect()
    assert SECRET not in repr(opened) + repr(opened.config) + repr(opened.azureml) + repr(opened.config.sign_in)
    assert SECRET in str(opened.to_mapping()), "a script signs in as its step does"


def test_the_test_of_a_connection_says_whether_the_workspace_answers(
    azure_ml: AzureMl, connected: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    works, sentence = AmlWorkspaceHook().test_connection()
    assert works, sentence
    assert "Azure ML workspace 'team' (eastus)" in sentence

    connect(monkeypatch, password="not the secret of the client")
    works, sentence = AmlWorkspaceHook().test_connection()
    assert not works
    assert "'azureml_default': signing in was refused" in sentence


def test_the_hook_gives_azure_mls_own_client(azure_ml: AzureMl, connected: Workspace) -> None:
    client = AmlWorkspaceHook().get_ml_client()
    assert client.datastores.get_default().name == "workspaceblobstore"
    assert client.workspace_name == "team"


@pytest.mark.parametrize("cloud", ["us_government", "china", "public"])
def test_the_client_of_each_cloud_asks_that_cloud(
    azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch, cloud: str
) -> None:
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureChinaCloud" if cloud != "china" else "AzureCloud")
    host = {"us_government": "management.usgovcloudapi.net", "china": "management.chinacloudapi.cn"}
    connect(monkeypatch, cloud=cloud)
    assert AmlWorkspaceHook().get_ml_client().datastores.get_default().name == "workspaceblobstore"
    assert {each.host for each in azure_ml.requests} == {host.get(cloud, "management.azure.com")}


def test_a_client_that_is_refused_says_why(azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, password="not the secret of the client")
    with pytest.raises(UserError, match="signing in was refused"):
        AmlWorkspaceHook().get_ml_client().datastores.get_default()


def test_a_missing_client_is_said_with_its_extra(connected: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.ai.ml", None)
    with pytest.raises(MissingExtra, match=r'pip install "airflow-aml-data\[azureml\]"'):
        AmlWorkspaceHook().get_ml_client()


def test_single_requests_do_not_import_the_slow_client(connected: Workspace, azure_ml: AzureMl) -> None:
    script = (
        "import sys; from airflow_aml_data import Workspace; print(Workspace().connect().azureml.check());"
        "sys.exit('azure.ai.ml' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "workspace 'team' (eastus)" in ended.stdout
