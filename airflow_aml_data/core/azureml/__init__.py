"""What this package asks of an Azure ML workspace."""
