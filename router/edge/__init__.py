"""The public port: accepts connections, reads HTTP, writes answers, and serves what is not an inference call. Step
1.
"""
