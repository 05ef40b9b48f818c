"""The standby and what it becomes: a process that has imported the engine, and the first lines of each fork. Step 8."""
