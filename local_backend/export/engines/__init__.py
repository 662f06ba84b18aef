"""Run an exported model in the runtimes that people use, each in its own interpreter.

`run.py` is a program for any interpreter that has the runtime: it needs neither cloudft nor the
trainer there. The other files are the runtimes, one each, loaded by it from beside itself.
"""
