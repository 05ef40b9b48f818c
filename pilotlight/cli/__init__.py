"""The command line: one folder a subject; beside them what all of them share."""
