"""Our side of Azure ML: a workspace of this package whose connection names the one that is running."""
