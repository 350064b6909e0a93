"""Files of the sandbox, as the sandbox's own user sees them.

Everything here runs without threads: the interpreter of user code is forked from this process, and a process with
threads must not fork (fork(2), NOTES). Long work is cut into short steps that give the event loop its turn.
"""
