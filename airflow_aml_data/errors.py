"""Every error this package raises on purpose.

* AmlDataError
  x UserError                 the DAG, the script or the connection must change; a retry cannot help
    - InvalidName             a name of an input, output, datastore or dataset
    - InvalidPath             a path that leaves its root, or an unknown placeholder
    - InvalidDeclaration      a dataset, output or step declared with values that cannot work (also ValueError)
    - DatasetTimestampMissingError   a time filter on a dataset without timestamp columns
    - WiringError             steps whose inputs and outputs do not fit together
    - InvalidConfiguration    a connection or config.json with an unknown key or a wrong type
    - WorkspaceNotFound       no connection, or no config.json, of that name
    - DatastoreNotFound, DatasetNotFound, DatasetIdNotFound, DatasetExists
    - StorageRefused          a store says no: credentials, a permission, or a container, share or account that is missing
      - FileKept              a file that the store does not let go: it is leased, or immutable by a policy
    - AzureMlRefused          Azure ML says no: credentials, a role, or a subscription, resource group or workspace that is missing
    - AzureMlNotFound         something of a name that the Azure ML workspace does not have: a compute, a data asset
    - DatastoreInUse          a datastore that cannot be forgotten or moved: data that somebody may read lies on it
    - UnsupportedDatastore    a kind of datastore that is not offered
    - MountNotPossible        this machine cannot mount, and the workspace does not want another way
    - MissingExtra            an optional package is not installed (also ImportError)
    - FilesNotFound           a path or glob of a dataset matches nothing
    - FilesExist              a download or upload would overwrite files
    - OutputConflict          an output's destination already holds one of its files
    - OutputInUse             another step is writing the same place at this moment
    - OutputUnusable          the script left something that cannot be stored
    - DataChanged             committed data is missing, or not what its manifest says
      - DataDeleted           committed data was deleted by a plan; what to run again is in the message
    - PlanNotReady            a deletion plan that is not in the state this needs
    - DataNotReadable         a file that is not in the format its dataset says (also ValueError)
    - OfflineRun              something only a step has was asked of a script run by hand (also AttributeError)
    - NotOffered              a part of the SDK v1 that has no counterpart here (also AttributeError)
    - RunCanceled             the script cancelled its run
  x StepFailed                the user's script ended badly: exit code or signal, or it said so
  x JobFailed                 an Azure ML job failed or was cancelled, and not by its script
  x OutputLost                an Azure ML job has not stored what its script has written
  x StaleTry                  a newer try, or another step, has taken over this try's outputs
  x StorageError              the store failed or was out of reach; a retry may help
  x AzureMlError              Azure ML failed or was out of reach; a retry may help
  x TransfersCancelled        the task was cancelled while files were moved
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AmlDataError(Exception):
    """Base of every deliberate error of this package."""


class UserError(AmlDataError):
    """Something the user has to change; retrying cannot help."""


class InvalidName(UserError, ValueError):
    """A name that v1's rule for names refuses."""


class InvalidPath(UserError, ValueError):
    """A path that leaves its root or holds an unknown placeholder."""


class InvalidDeclaration(UserError, ValueError):
    """A declaration whose values cannot work."""


class DatasetTimestampMissingError(InvalidDeclaration):
    """A time filter on a dataset without timestamp columns. Source: v1, the name too."""


class WiringError(UserError, ValueError):
    """Inputs and outputs of steps that do not fit together."""


class InvalidConfiguration(UserError, ValueError):
    """A workspace configuration with an unknown key or a wrong type."""


class WorkspaceNotFound(UserError, LookupError):
    """No connection or no config.json where one was named."""


class _NotFound(UserError, LookupError):
    what = "Thing"
    remedy = ""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(name, tuple(sorted(known)))
        self.name, self.known = name, tuple(sorted(known))

    def __str__(self) -> str:
        near = get_close_matches(self.name, self.known, n=1)
        listed = ", ".join(self.known[:20]) + (", ..." if len(self.known) > 20 else "")
        return (
            f"{self.what} {self.name!r} does not exist in the workspace (there are: {listed or 'none'}). "
            + (f"Did you mean {near[0]!r}? " if near else "")
            + self.remedy
        )


class DatastoreNotFound(_NotFound):
    """A datastore name the workspace does not know."""

    what = "Datastore"
    remedy = (
        "Declare it under 'datastores' in the workspace's Airflow connection, or register it: "
        "Datastore.register_azure_blob_container()."
    )


class DatasetNotFound(_NotFound):
    """A dataset name or version nobody registered.

    :param azureml: The Azure ML workspace that does not have it either; empty when none was asked.
    """

    def __init__(self, name: str, version: int | str, known: Iterable[str] = (), azureml: str = "") -> None:
        super().__init__(name, known)
        self.args = (name, version, self.known, azureml)
        self.version, self.azureml = version, azureml

    def __str__(self) -> str:
        near = get_close_matches(self.name, self.known, n=1)
        return (
            f'Cannot find dataset registered with name "{self.name}" (version: {self.version}) in the workspace'
            + (f", nor a data asset in Azure ML workspace {self.azureml!r}. " if self.azureml else ". ")
            + (f"Did you mean {near[0]!r}? " if near and near[0] != self.name else "")
            + f"Registered: {', '.join(self.known[:20]) or 'nothing'}. "
            "A dataset gets its name by dataset.register(), or by register_on_complete() of the output of a step."
        )


class DatasetIdNotFound(DatasetNotFound):
    """A dataset id that no registered version has."""

    def __init__(self, dataset_id: str) -> None:
        super().__init__(dataset_id, "")
        self.args = (dataset_id,)

    def __str__(self) -> str:
        return (
            f'Cannot find dataset with id "{self.name}" in the workspace. A dataset has its id from register() until '
            "unregister_all_versions(); read it as .id of what register() or Dataset.get_by_name() returns."
        )


class DatasetExists(UserError):
    """A dataset of that name is registered already."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f'There is already a dataset registered under name "{self.name}". Specify '
            "`create_new_version=True` to register the dataset as a new version."
        )


class StorageRefused(UserError, PermissionError):
    """A store refuses, and a retry cannot help: credentials, a permission, or a container, share or account that is missing."""


class FileKept(StorageRefused):
    """A file that the store does not let go: somebody holds a lease on it, or a policy makes it immutable."""


class AzureMlRefused(UserError, PermissionError):
    """Azure ML refuses, and a retry cannot help: credentials, a role, or a subscription, group or workspace that is missing.

    :ivar status: The service's HTTP status; 0 when it was not asked.
    """

    status: int = 0


class AzureMlNotFound(_NotFound):
    """Something of a name that the Azure ML workspace does not have.

    :param what: What it is, such as ``"Compute"``.
    :param known: Names that there are; None: nobody can list them.
    """

    def __init__(self, what: str, name: str, workspace: str, known: Iterable[str] | None = None) -> None:
        super().__init__(name, known or ())
        self.what, self.workspace, self.is_listed = what, workspace, known is not None
        self.args = (what, name, workspace, None if known is None else self.known)

    def __str__(self) -> str:
        near = get_close_matches(self.name, self.known, n=1)
        listed = ", ".join(self.known[:20]) + (", ..." if len(self.known) > 20 else "")
        return (
            f"{self.what} {self.name!r} does not exist in Azure ML workspace {self.workspace!r}"
            + (f" (there are: {listed or 'none'}). " if self.is_listed else ". ")
            + (f"Did you mean {near[0]!r}? " if near else "")
            + "Correct the name, or create it there."
        )


class DatastoreInUse(UserError):
    """A datastore that cannot be forgotten or moved: it is the default, or data that somebody may read lies on it."""


class UnsupportedDatastore(UserError):
    """A kind of datastore that is not offered."""


class MountNotPossible(UserError):
    """This machine does not let a step mount files of a remote store, and ``mount_fallback`` is ``"fail"``."""


class MissingExtra(UserError, ImportError):
    """An optional package is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(what, extra)
        self.what, self.extra = what, extra

    def __str__(self) -> str:
        return f'{self.what} needs an extra: pip install "airflow-aml-data[{self.extra}]"'


class FilesNotFound(UserError, FileNotFoundError):
    """A dataset path that matches no file."""


class FilesExist(UserError, FileExistsError):
    """Files stand where a download or an upload would write."""


class OutputConflict(UserError, FileExistsError):
    """The destination of an output already holds a file of the same name."""


class OutputInUse(UserError):
    """Another step is writing to the same place at this moment."""


class OutputUnusable(UserError):
    """What the script left in its output folder cannot be stored."""


class DataChanged(UserError):
    """Committed data is missing or is no longer what its manifest says."""


class DataDeleted(DataChanged):
    """Committed data was deleted by a plan of the retention DAG."""


class PlanNotReady(UserError):
    """A deletion plan is not in the state that what was asked needs."""


class DataNotReadable(UserError, ValueError):
    """A file is not in the format its dataset declares."""


class OfflineRun(UserError, AttributeError):
    """Something only a pipeline step has was asked of a script that runs by hand."""


class NotOffered(UserError, AttributeError):
    """A part of the SDK v1 that has no counterpart here."""


class RunCanceled(UserError):
    """The script cancelled its run, with ``Run.cancel()``."""

    def __init__(self, script: str) -> None:
        super().__init__(script)
        self.script = script

    def __str__(self) -> str:
        return f"{self.script} cancelled its run; none of its outputs was published, and no step after it runs."


class StepFailed(AmlDataError):
    """The user's script ended badly.

    :param exit_code: The script's exit code; negative: the number of the signal that ended it.
    :param details: What the script said about it with ``Run.fail()``.
    """

    def __init__(self, script: str, exit_code: int, details: str | None = None) -> None:
        super().__init__(script, exit_code, details)
        self.script, self.exit_code, self.details = script, exit_code, details

    def __str__(self) -> str:
        code = self.exit_code
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if self.details is not None:
            how += f" and marked its run as failed: {self.details}"
        return f"{self.script} {how}; none of its outputs was published. Its own messages are in the log above."


class JobFailed(AmlDataError):
    """An Azure ML job ended as failed or cancelled, for another reason than its script's.

    :param status: How the service says it ended.
    :param message: Why, as the service says it; may be empty.
    """

    def __init__(self, job: str, status: str, message: str = "") -> None:
        super().__init__(job, status, message)
        self.job, self.status, self.message = job, status, message

    def __str__(self) -> str:
        why = f": {self.message}" if self.message else "; the job's page in the studio says more"
        return f"Azure ML job {self.job!r} ended as {self.status}{why}. None of its outputs was published."


class OutputLost(AmlDataError):
    """What an Azure ML job has stored is not what its script has written; a retry runs the step again."""


class StaleTry(AmlDataError):
    """This try no longer owns its outputs: it ended, or another took them over. It publishes nothing."""


class StorageError(AmlDataError, OSError):
    """The store failed or was out of reach; retrying may help.

    :ivar retry_after_seconds: How long the store asks to be left alone; None when it has not said.
    """

    retry_after_seconds: float | None = None


class AzureMlError(AmlDataError, OSError):
    """Azure ML failed or was out of reach; retrying may help.

    :ivar retry_after_seconds: How long the service asks to be left alone; None when it has not said.
    """

    retry_after_seconds: float | None = None


class TransfersCancelled(AmlDataError):
    """The task was cancelled while files were moved."""

    def __str__(self) -> str:
        return "The transfer was cancelled with its task."
