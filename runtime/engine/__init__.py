"""vLLM, and the only code that touches it: in the standby, and in both processes of a replica. Step 8.

Importing this package imports no engine.
"""
