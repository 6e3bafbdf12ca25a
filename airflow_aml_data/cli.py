"""``airflow aml-data``: what its commands are called and take.

Airflow imports this module for every ``airflow`` command, so it is empty at the top; the bodies are in :mod:`.cli_commands`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand

STATES = ("writing", "committed", "abandoned", "deleting", "deleted", "missing", "unknown")
"""Of an output."""


def get_cli_commands() -> list[CLICommand]:
    """The group ``aml-data``, for Airflow."""
    from airflow.cli.cli_config import ActionCommand, GroupCommand, lazy_load_command, positive_int

    from airflow_aml_data.core.connections import DEFAULT_CONN_ID

    number = positive_int(allow_zero=False)  # type: ignore[no-untyped-call]
    common = (
        _arg("--conn-id", default=DEFAULT_CONN_ID, help="Connection of the workspace (default: %(default)s)"),
        _arg("-o", "--output", choices=("table", "json"), default="table", help="Format (default: %(default)s)"),
    )
    limit = _arg("--limit", type=number, default=100, metavar="N", help="Lines at most (default: %(default)s)")
    output_id = _arg("output_id", metavar="OUTPUT_ID", help="First column of `outputs`")

    def command(name: str, body: str, summary: str, *args: Any, more: str = "") -> ActionCommand:
        load = lazy_load_command(f"airflow_aml_data.cli_commands.{body}")
        return ActionCommand(name, summary, load, (*args, *common), description=f"{summary}.\n{more}".rstrip())

    return [
        GroupCommand(
            "aml-data",
            "Look at intermediate data of Azure ML steps, keep it, delete it",
            (
                command(
                    "outputs",
                    "show_outputs",
                    "List outputs of steps, newest first",
                    _arg("--dag-id", help="Only of this DAG"),
                    _arg("--run-id", help="Only of this DAG run"),
                    _arg("--task-id", help="Only of this step"),
                    _arg("--state", choices=STATES, help="Only in this state"),
                    _arg("--datastore", help="Only on this datastore"),
                    limit,
                    more="Times are UTC. 'age' is in days since the last change; 'due' is when an output may go by its age,\n"
                    "with the usual periods and if nothing keeps it.",
                ),
                command(
                    "plan",
                    "plan_deletion",
                    "Plan a deletion, show a plan, or list the plans",
                    _arg("number", nargs="?", type=number, metavar="PLAN", help="Show this plan"),
                    _arg(
                        "--datastore",
                        action="append",
                        metavar="NAME",
                        help="Make a plan for this datastore; may be repeated",
                    ),
                    _arg(
                        "--retention-days",
                        type=number,
                        metavar="N",
                        help="Days since an output's last change and last use (default: 30)",
                    ),
                    _arg(
                        "--abandoned-days",
                        type=number,
                        metavar="N",
                        help="Days for what failed attempts left (default: 7)",
                    ),
                    _arg(
                        "--maximum-share",
                        type=float,
                        metavar="SHARE",
                        help="Of a datastore's bytes, the most that a plan may delete, up to 1 (default: 0.5)",
                    ),
                    _arg("--allow-early-deletion", metavar="REASON", help="Why less than 30 days are allowed"),
                    limit,
                    more="With --datastore, writes down exactly which files may go, and deletes nothing.\n"
                    "With a number, shows that plan and what became of it. Without both, lists the plans.",
                ),
                command(
                    "sweep",
                    "sweep",
                    "Show what a plan would delete; with --approve, delete it",
                    _arg("number", type=number, metavar="PLAN", help="Number of the plan"),
                    _arg(
                        "--approve",
                        action="store_true",
                        help="Approve the plan in your name and delete. Without this, nothing changes",
                    ),
                    _arg(
                        "--keep",
                        action="append",
                        default=[],
                        metavar="OUTPUT_ID",
                        help="Strike this output out of the plan; may be repeated",
                    ),
                    limit,
                    more="A sweep that was cut off goes on when the command is repeated; so does one that was approved elsewhere.",
                ),
                command(
                    "history",
                    "show_history",
                    "List what happened to outputs and datasets, newest first",
                    _arg("--output-id", help="Only of this output"),
                    _arg("--dataset", help="Only of the registered dataset of this name"),
                    limit,
                    more="Times are UTC.",
                ),
                command(
                    "pin",
                    "pin_output",
                    "Keep an output, whatever its age",
                    output_id,
                    _arg("--reason", required=True, help="Why; goes into the history"),
                ),
                command("unpin", "unpin_output", "Let an output go when its time has come", output_id),
                command(
                    "lint-lifecycle",
                    "lint_lifecycle",
                    "Look for rules of Azure's own that would delete or archive what has to stay",
                    _arg("--datastore", required=True, metavar="NAME", help="A datastore on the storage account"),
                    _arg("--subscription-id", default="", help="Of the storage account (default: the workspace's)"),
                    _arg("--resource-group", default="", help="Of the storage account (default: the workspace's)"),
                    limit,
                    more="Reads the account's lifecycle policy and changes nothing. Exit code 1 when a rule does harm.",
                ),
            ),
        )
    ]


def _arg(*flags: str, **options: Any) -> Any:
    from airflow.cli.cli_config import Arg

    return Arg(flags, **options)  # type: ignore[no-untyped-call]
