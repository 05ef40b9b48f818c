"""What should be: pure decisions on values. No I/O and no clock here; time is an argument. Step 6."""
