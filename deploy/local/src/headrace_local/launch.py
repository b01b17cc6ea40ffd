"""Becomes one process of the stack: leaves its pid, gives up root where told to, and executes the program.

Run by the supervisor as `python -I -S launch.py SPEC.json` for every start and restart, so it uses nothing
but the standard library. The specification is a private file: that keeps passwords out of command lines, and
any path or value may hold any character. Its fields: `argv`, `env` (the whole environment), `cwd`,
`pid_file`, and `user` (null: the current one).
"""

import json
import os
import sys


def main() -> None:
    """Never returns: the program takes over this process."""
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    leave_pid(spec["pid_file"])
    os.chdir(spec["cwd"])
    if spec.get("user"):
        become(spec["user"])
    os.umask(0o077)
    os.execve(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 - no shell is wanted


def leave_pid(path: str) -> None:
    """Writes this process's id, which stays the same through execve; replaced atomically for readers."""
    partial = f"{path}.partial"
    with open(partial, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    os.replace(partial, path)


def become(name: str) -> None:
    """Gives up root for good, groups included."""
    import pwd

    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


if __name__ == "__main__":
    main()
