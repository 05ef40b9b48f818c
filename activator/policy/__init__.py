"""Pure decisions on values: no I/O and no clock, time is an argument. Step 6."""
