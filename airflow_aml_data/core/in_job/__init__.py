"""The part of a step that runs in an Azure ML job, around the author's script. It travels with the job's code."""
