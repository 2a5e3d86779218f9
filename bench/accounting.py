#!/usr/bin/env python3
"""Accounting side by side: Lastmile on SQLite and on PostgreSQL, FreeRADIUS on the same PostgreSQL, one table.

usage: bench/accounting.py [--sessions N] [--window W] [--rounds R]

Builds the release binary and the load generator, starts every server itself on loopback ports and ends it by its pid.
Every answer of Lastmile and of both PostgreSQL set-ups is durable (fsync on). CPU per acknowledged record counts all
processes of a server, PostgreSQL's included, not the load generator's.
"""
import argparse, json, os, pathlib, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SECRET = "testing123"
TICKS = os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=6000)
    parser.add_argument("--peer-sessions", type=int, default=1500)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "lastmile", "--example", "accounting_load"], cwd=ROOT, check=True)
    rows = {}
    with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
        os.chmod(folder, 0o755)
        folder = pathlib.Path(folder)
        cluster = Postgres(folder / "pg")
        try:
            for _ in range(options.rounds):
                for name, server, sessions in (
                    ("Lastmile, SQLite (durable)", lambda d: Lastmile(d, f"sqlite://{d}/lastmile.db", None), options.sessions),
                    ("Lastmile, PostgreSQL (durable)", lambda d: Lastmile(d, cluster.database(), cluster), options.sessions),
                    ("FreeRADIUS, PostgreSQL (durable)", lambda d: FreeRadius(d, cluster), options.peer_sessions),
                ):
                    work = pathlib.Path(tempfile.mkdtemp(dir=folder))
                    os.chmod(work, 0o755)
                    running = server(work)
                    try:
                        rows.setdefault(name, []).append(measure(running, sessions, options.window, work))
                    finally:
                        running.stop()
                        shutil.rmtree(work, ignore_errors=True)
        finally:
            cluster.stop()
    print_table(rows, options)


def measure(server, sessions, window, work):
    before, began = server.cpu_seconds(), time.monotonic()
    output = subprocess.run(
        [TARGET / "release/examples/accounting_load", "--target", f"127.0.0.1:{server.port}", "--secret", SECRET,
         "--sessions", str(sessions), "--window", str(window), "--truth", work / "truth.csv"],
        check=True, capture_output=True, text=True)
    result = json.loads(output.stdout.strip().splitlines()[-1])
    result["cpu_us"] = (server.cpu_seconds() - before) * 1e6 / max(result["acked"], 1)
    result["seconds"] = time.monotonic() - began
    result["rss_mb"] = server.resident_mb()
    return result


def print_table(rows, options):
    print(f"\naccounting, window {options.window}, median of {options.rounds} rounds in turn\n")
    head = ("server", "acked/s", "p50 ms", "p99 ms", "CPU us/ack", "resident MB")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, results in rows.items():
        middle = lambda key: statistics.median(result[key] for result in results)
        print(f"| {name} | {middle('acked_per_second'):,.0f} | {middle('p50_ms'):.2f} | {middle('p99_ms'):.2f} "
              f"| {middle('cpu_us'):.0f} | {middle('rss_mb'):.0f} |")


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_of(pids):
    total = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def children(pid):
    found = [pid]
    try:
        listed = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return found
    for child in listed:
        found += children(int(child))
    return found


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


class Postgres:
    """A cluster of its own with fsync on."""

    def __init__(self, folder):
        self.folder, self.port, self.count = folder, free_port(socket.SOCK_STREAM), 0
        self.binaries = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        folder.mkdir()
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        self.run("initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions")
        self.run("pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o",
                 f"-p {self.port} -k {folder} -c listen_addresses=127.0.0.1", "start")
        self.pid = int((folder / "data/postmaster.pid").read_text().splitlines()[0])

    def run(self, program, *arguments):
        command = [str(self.binaries / program), *map(str, arguments)]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, cwd="/", check=True, stdout=subprocess.DEVNULL)

    def sql(self, database, *arguments):
        subprocess.run(["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, "-Xqv", "ON_ERROR_STOP=1", *arguments],
                       check=True, stdout=subprocess.DEVNULL)

    def database(self):
        self.count += 1
        name = f"bench{self.count}"
        self.sql("postgres", "-c", f"CREATE DATABASE {name}")
        # Over the Unix socket, as a daemon on the same machine would.
        return f"postgres://postgres@localhost/{name}?host={self.folder}&port={self.port}"

    def stop(self):
        os.kill(self.pid, signal.SIGINT)


class Lastmile:
    def __init__(self, folder, url, cluster, quick=False):
        self.port, self.http = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        self.cluster = cluster
        (folder / "key").write_text("0123456789abcdef" * 4)
        os.chmod(folder / "key", 0o600)
        config = folder / "lastmile.toml"
        config.write_text(f"""[database]
url = "{url}"
[secrets]
key_file = "{folder}/key"
[api]
listen = "127.0.0.1:{self.http}"
[radius]
accounting = ["127.0.0.1:{self.port}"]
[[radius.nas]]
name = "bench"
address = "127.0.0.0/8"
secret = "{SECRET}"
identity = "nas-identifier"
[log]
format = "text"
level = "error"
""")
        self.process = subprocess.Popen([TARGET / "release/lastmile", "--config", config, "serve"])
        wait_for_http(self.http, 0.002 if quick else 0.05)

    def pids(self):
        return children(self.process.pid) + (children(self.cluster.pid) if self.cluster else [])

    def cpu_seconds(self):
        return cpu_of(self.pids())

    def resident_mb(self):
        return resident(self.process.pid)

    def stop(self):
        self.process.terminate()
        self.process.wait()


class FreeRadius:
    """FreeRADIUS with its stock SQL accounting on PostgreSQL: one transaction a record, answered after it."""

    def __init__(self, folder, cluster):
        self.port, self.cluster = free_port(socket.SOCK_DGRAM), cluster
        name = f"radius{cluster.count}"
        cluster.count += 1
        cluster.sql("postgres", "-c", f"CREATE DATABASE {name}")
        cluster.sql(name, "-f", "/etc/freeradius/3.0/mods-config/sql/main/postgresql/schema.sql")
        (folder / "radiusd.conf").write_text(f"""
prefix = /usr
libdir = /usr/lib/freeradius
logdir = {folder}
run_dir = {folder}
confdir = {folder}
name = bench
pidfile = {folder}/radiusd.pid
max_requests = 65536
thread pool {{
  start_servers = 8
  max_servers = 32
}}
log {{
  destination = files
  file = {folder}/radius.log
}}
client lo {{
  ipaddr = 127.0.0.0/8
  secret = {SECRET}
}}
modules {{
  expr {{ }}
  sql {{
    dialect = "postgresql"
    driver = "rlm_sql_postgresql"
    server = "127.0.0.1"
    port = {cluster.port}
    login = "postgres"
    radius_db = "{name}"
    acct_table1 = "radacct"
    acct_table2 = "radacct"
    postauth_table = "radpostauth"
    authcheck_table = "radcheck"
    groupcheck_table = "radgroupcheck"
    authreply_table = "radreply"
    groupreply_table = "radgroupreply"
    usergroup_table = "radusergroup"
    client_table = "nas"
    group_attribute = "SQL-Group"
    pool {{
      start = 4
      min = 4
      max = 32
      spare = 4
    }}
    $INCLUDE /etc/freeradius/3.0/mods-config/sql/main/postgresql/queries.conf
  }}
}}
policy {{
  $INCLUDE /etc/freeradius/3.0/policy.d/accounting
}}
server bench {{
  listen {{
    type = acct
    ipaddr = 127.0.0.1
    port = {self.port}
    recv_buff = 4194304
  }}
  preacct {{
    acct_unique
  }}
  accounting {{
    sql
  }}
}}
""")
        self.process = subprocess.Popen(["freeradius", "-f", "-d", folder, "-n", "radiusd"], stdout=open(folder / "out", "w"), stderr=subprocess.STDOUT)
        time.sleep(2)
        if self.process.poll() is not None:
            sys.exit("FreeRADIUS did not start: " + "".join(f.read_text() for f in (folder / "out", folder / "radius.log") if f.exists()))

    def pids(self):
        return children(self.process.pid) + children(self.cluster.pid)

    def cpu_seconds(self):
        return cpu_of(self.pids())

    def resident_mb(self):
        return resident(self.process.pid)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def wait_for_http(port, pause):
    for _ in range(int(20 / pause)):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as stream:
                stream.sendall(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                if b" 200 " in stream.recv(64):  # the status line
                    return
        except OSError:
            pass
        time.sleep(pause)
    sys.exit("Lastmile did not become ready")


if __name__ == "__main__":
    main()
