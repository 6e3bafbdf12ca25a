"""
### Delete intermediate data when it may go

**What** Compares the catalog with the datastores, waits until an output has not been changed or used for 30 days, writes down exactly
which files may go, asks a person, deletes them, and says what was freed.

**Why** Azure never deletes intermediate data by itself, and everybody pays for it. Deleting it by hand breaks pipelines that count on
it for 30 days; this DAG knows who made what, who read it, and what is registered, pinned or in use.

**When** Unpause it once. It runs daily; runs in which nothing is due are skipped.

**Before** Name the datastores in the trigger form, or as defaults in this file.

**Look at** *Required Actions* shows the plan for approval; strike out what shall stay by its output id. The log of `plan` says what
stays and why, the log of `report` what was freed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param, TriggerRule, task

from airflow_aml_data.operators.retention import (
    PlanDeletionOperator,
    ReconcileOperator,
    SweepOperator,
    decide_plan,
    end_of_plan,
)
from airflow_aml_data.sensors.retention import OutputsDueSensor

SCOPE = {
    "datastores": "{{ params.datastores }}",
    "retention_days": "{{ params.retention_days }}",
    "abandoned_days": "{{ params.abandoned_days }}",
    "maximum_share": "{{ params.maximum_share }}",
    "allow_early_deletion": "{{ params.allow_early_deletion }}",
}

with DAG(
    "aml_data_retention",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    tags=["azureml", "retention"],
    doc_md=__doc__,
    params={
        "datastores": Param(
            ["workspaceblobstore"],
            type="array",
            items={"type": "string"},
            description="Datastores to clean up, one a line.",
        ),
        "retention_days": Param(
            30,
            type="integer",
            minimum=1,
            description="Days since the last change and the last use. Below 30 needs a reason.",
        ),
        "abandoned_days": Param(7, type="integer", minimum=1, description="Days for what failed attempts left."),
        "maximum_share": Param(
            0.5,
            type="number",
            minimum=0.01,
            maximum=1,
            description="Of a datastore's bytes, the most that may go at once.",
        ),
        "approval": Param(True, type="boolean", description="Ask a person before anything is deleted."),
        "dry_run": Param(False, type="boolean", description="Only say what would be deleted."),
        "allow_early_deletion": Param("", type="string", description="Why less than 30 days are allowed."),
    },
):
    reconcile = ReconcileOperator(task_id="reconcile", **SCOPE)
    due = OutputsDueSensor(task_id="due", **SCOPE)
    plan = PlanDeletionOperator(task_id="plan", **SCOPE)

    @task.branch
    def who_decides(params: dict) -> str:
        return "approval" if params["approval"] and not params["dry_run"] else "decide"

    approval = ApprovalOperator(
        task_id="approval",
        subject="Delete {{ ti.xcom_pull('plan')['outputs'] }} outputs, {{ ti.xcom_pull('plan')['size'] }}?",
        body="{{ ti.xcom_pull('plan')['table'] }}",
        params={
            "keep": Param(
                None,
                type=["null", "array"],
                items={"type": "string"},
                title="Strike out",
                description="Ids of outputs that shall stay, one a line.",
            )
        },
        defaults="Reject",
        response_timeout=timedelta(hours=20),
    )

    @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    def decide(params: dict, ti=None) -> list[int]:
        """Batches to sweep; none of a dry run."""
        planned, answer = ti.xcom_pull("plan"), ti.xcom_pull("approval")
        if params["dry_run"]:
            return []
        person = (answer or {}).get("responded_by_user")
        by = str(person["name"]) if person else "the DAG's settings"
        keep = ((answer or {}).get("params_input") or {}).get("keep") or []
        decide_plan(planned["plan"], approved=True, by=by, is_person=bool(person), keep=keep)
        return planned["batches"]

    decided = decide()
    sweep = SweepOperator.partial(
        task_id="sweep", plan="{{ ti.xcom_pull('plan')['plan'] }}", is_dry_run="{{ params.dry_run }}"
    ).expand(batch=decided)

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def report(params: dict, ti=None) -> dict | None:
        """What was freed; a plan that nobody approved is closed. Who rejected it stands in *Required Actions*."""
        planned = ti.xcom_pull("plan")
        by = "the dry run" if params["dry_run"] else "the answer to task approval"
        return end_of_plan(planned["plan"], rejected_by=by) if planned else None

    reconcile >> due >> plan >> who_decides() >> [approval, decided]
    approval >> decided
    sweep >> report()
