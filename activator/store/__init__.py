"""The activator's SQL: one `.sql` file a subject, each statement named and described, and the functions that run
them.
"""
