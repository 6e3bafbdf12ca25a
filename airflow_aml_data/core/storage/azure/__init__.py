"""Datastores in Azure storage accounts."""
