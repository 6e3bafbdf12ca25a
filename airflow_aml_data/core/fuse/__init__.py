"""Files of datastores as a file system of a step: fetched when they are read, stored when they are closed."""
