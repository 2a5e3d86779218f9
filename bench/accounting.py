#!/usr/bin/env python3
"""Accounting side by side: Lastmile on SQLite and PostgreSQL, FreeRADIUS on PostgreSQL and into its detail file.

usage: bench/accounting.py [--sessions N] [--windows 64,256] [--rounds R] [--fill N]

Builds the release binary and the load generator, starts every server itself on loopback ports and ends it by its pid;
the servers take turns, so that a busy machine is busy for all. Subscribers are known and the fold runs: a round ends
when the last record is folded. Every answer of Lastmile and of both PostgreSQL set-ups is durable (fsync on); the
detail file is not. CPU per acknowledged record counts all processes of a server, PostgreSQL's included, not the load
generator's. fsyncs are the journal's commits, or what PostgreSQL counts in pg_stat_wal.

With --fill N it measures instead, on SQLite, the rate on an empty store and on one of N records, and the time from a
kill -9 to the first answer.
"""
import argparse, concurrent.futures, http.client, json, os, pathlib, shutil, signal, socket, statistics, subprocess, sys, tempfile, time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SECRET = "testing123"
TICKS = os.sysconf("SC_CLK_TCK")
SUBSCRIBERS = 1000
CATALOG = ROOT / "bench" / "catalog.toml"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=40000)
    parser.add_argument("--peer-sessions", type=int, default=3000)
    parser.add_argument("--windows", default="64,256")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fill", type=int, default=0)
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "lastmile", "--example", "accounting_load"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
        os.chmod(folder, 0o755)
        folder = pathlib.Path(folder)
        if options.fill:
            return fill(folder, options)
        cluster = Postgres(folder / "pg")
        try:
            for window in map(int, options.windows.split(",")):
                rows = {}
                for _ in range(options.rounds):
                    for name, server, sessions in (
                        ("Lastmile, SQLite (durable)", lambda d: Lastmile(d, f"sqlite://{d}/lastmile.db", None), options.sessions),
                        ("Lastmile, PostgreSQL (durable)", lambda d: Lastmile(d, cluster.database(), cluster), options.sessions),
                        ("FreeRADIUS, PostgreSQL (durable)", lambda d: FreeRadius(d, cluster), options.peer_sessions),
                        ("FreeRADIUS, detail file (not durable)", lambda d: FreeRadius(d, None), options.peer_sessions * 5),
                    ):
                        work = pathlib.Path(tempfile.mkdtemp(dir=folder))
                        os.chmod(work, 0o755)
                        running = server(work)
                        try:
                            rows.setdefault(name, []).append(measure(running, sessions, window, work))
                        finally:
                            running.stop()
                            shutil.rmtree(work, ignore_errors=True)
                print_table(rows, window, options)
        finally:
            cluster.stop()


def load(server, sessions, window, *more):
    output = subprocess.run(
        [TARGET / "release/examples/accounting_load", "--target", f"127.0.0.1:{server.port}", "--secret", SECRET,
         "--sessions", str(sessions), "--window", str(window), "--users", str(SUBSCRIBERS), "--user-pattern", "user{}@bench",
         "--sockets", str(max(1, window // 128)), *more],
        check=True, capture_output=True, text=True)
    return json.loads(output.stdout.strip().splitlines()[-1])


def measure(server, sessions, window, work):
    server.make_ready()
    before, fsyncs, began = server.cpu_seconds(), server.fsyncs(), time.monotonic()
    result = load(server, sessions, window, "--truth", str(work / "truth.csv"))
    seconds = time.monotonic() - began
    result["fold_lag"] = server.wait_until_folded()
    result["cpu_us"] = (server.cpu_seconds() - before) * 1e6 / max(result["acked"], 1)
    result["fsyncs"] = (server.fsyncs() - fsyncs) / seconds
    result["rss_mb"] = server.resident_mb()
    return result


def print_table(rows, window, options):
    print(f"\naccounting, window {window}, {SUBSCRIBERS} known subscribers, median of {options.rounds} rounds in turn\n")
    head = ("server", "acked/s", "p50 ms", "p99 ms", "CPU us/ack", "fsyncs/s", "fold behind s", "resident MB")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, results in rows.items():
        middle = lambda key: statistics.median(result[key] for result in results)
        print(f"| {name} | {middle('acked_per_second'):,.0f} | {middle('p50_ms'):.2f} | {middle('p99_ms'):.2f} "
              f"| {middle('cpu_us'):.1f} | {middle('fsyncs'):,.0f} | {middle('fold_lag'):.2f} | {middle('rss_mb'):.0f} |", flush=True)


def fill(folder, options):
    """Flatness and restart: does a store that holds many records slow down?"""
    window = int(options.windows.split(",")[-1])
    server = Lastmile(folder, f"sqlite://{folder}/lastmile.db", None)
    try:
        server.make_ready()
        rates = {}
        held = 0
        for stage in ("empty", "full"):
            if stage == "full":
                began, before = time.monotonic(), server.cpu_seconds()
                while held < options.fill:
                    held += load(server, 200_000, window, "--seed", str(100 + held))["acked"]
                server.wait_until_folded()
                print(f"filled to {held:,} records in {time.monotonic() - began:.0f} s, "
                      f"{(server.cpu_seconds() - before) * 1e6 / held:.1f} us CPU a record, {server.resident_mb():.0f} MB resident, "
                      f"{sum(f.stat().st_size for f in folder.glob('lastmile*.db*')) / held:.0f} octets a record on disk", flush=True)
            for turn in range(options.rounds):
                result = load(server, options.sessions, window, "--seed", str(turn + (10 if stage == "full" else 20)))
                held += result["acked"]
                rates.setdefault(stage, []).append(result["acked_per_second"])
        empty, full = (statistics.median(rates[stage]) for stage in ("empty", "full"))
        print(f"rate on the empty store {empty:,.0f}/s, on {held:,} records {full:,.0f}/s: {full / empty:.0%}", flush=True)
        restarts = []
        for turn in range(options.rounds):
            server.process.kill()
            server.process.wait()
            began = time.monotonic()
            server.spawn()
            load(server, 1, 1, "--seed", str(1000 + turn), "--retry-ms", "20", "--sends", "500", "--interims", "0")
            restarts.append(time.monotonic() - began)
        print(f"from a kill -9 with {held:,} records in the store to a session's two answers: median {statistics.median(restarts):.2f} s "
              f"of {options.rounds}", flush=True)
    finally:
        server.stop()


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

    def fsyncs(self):
        asked = subprocess.run(["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-Xqtc", "SELECT wal_sync FROM pg_stat_wal"],
                               check=True, capture_output=True, text=True)
        return int(asked.stdout)

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
        self.config = config
        self.spawn()
        wait_for_http(self.http, 0.002 if quick else 0.05)

    def spawn(self):
        self.process = subprocess.Popen([TARGET / "release/lastmile", "--config", self.config, "serve"])

    def make_ready(self):
        """Brings in the subscribers the records will speak of."""
        command = [TARGET / "release/lastmile", "--config", self.config]
        subprocess.run([*command, "catalog", "apply", CATALOG], check=True, stdout=subprocess.DEVNULL)
        made = subprocess.run([*command, "--json", "key", "create", "--tenant", "bench", "--role", "push"],
                              check=True, capture_output=True, text=True)
        headers = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}", "Content-Type": "application/json"}

        def push(numbers):
            connection = http.client.HTTPConnection("127.0.0.1", self.http)
            for number in numbers:
                document = {"source_revision": 1, "status": "active", "bill_cycle": "c15", "name": "Bench",
                            "services": [{"id": "s1", "type": "internet", "plan": "res-100", "billing_from": "2026-01-01",
                                          "radius": {"username": f"user{number}@bench", "password": "a-password-of-usual-length"}}]}
                connection.request("PUT", f"/v1/tenants/bench/accounts/b{number}", json.dumps(document), headers)
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status in (200, 201), (answer.status, body)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(push, (range(first, SUBSCRIBERS, 8) for first in range(8))))
        time.sleep(2)  # what the pushes have started, provisioning above all

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def fsyncs(self):
        return self.cluster.fsyncs() if self.cluster else self.metric("lastmile_journal_commit_seconds_count")

    def wait_until_folded(self):
        began = time.monotonic()
        while time.monotonic() - began < 120:
            if self.metric("lastmile_fold_records_total") >= self.metric("lastmile_journal_records_total"):
                return time.monotonic() - began
            time.sleep(0.05)
        sys.exit("the fold did not catch up within two minutes")

    def pids(self):
        return children(self.process.pid) + (children(self.cluster.pid) if self.cluster else [])

    def cpu_seconds(self):
        return cpu_of(self.pids())

    def resident_mb(self):
        return resident(self.process.pid)

    def stop(self):
        self.process.terminate()
        self.process.wait()


SQL_MODULE = """  sql {
    dialect = "postgresql"
    driver = "rlm_sql_postgresql"
    server = "127.0.0.1"
    port = PORT
    login = "postgres"
    radius_db = "NAME"
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
    pool {
      start = 4
      min = 4
      max = 32
      spare = 4
    }
    $INCLUDE /etc/freeradius/3.0/mods-config/sql/main/postgresql/queries.conf
  }"""


class FreeRadius:
    """FreeRADIUS with its stock SQL accounting on PostgreSQL: one transaction a record, answered after it. Without a
    cluster it writes its detail file, which it never syncs."""

    def __init__(self, folder, cluster):
        self.port, self.cluster = free_port(socket.SOCK_DGRAM), cluster
        name, module = "", f"  detail {{\n    filename = {folder}/detail\n    locking = no\n  }}"
        if cluster:
            name = f"radius{cluster.count}"
            cluster.count += 1
            cluster.sql("postgres", "-c", f"CREATE DATABASE {name}")
            cluster.sql(name, "-f", "/etc/freeradius/3.0/mods-config/sql/main/postgresql/schema.sql")
            module = SQL_MODULE.replace("PORT", str(cluster.port)).replace("NAME", name)
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
{module}
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
    {"sql" if cluster else "detail"}
  }}
}}
""")
        self.process = subprocess.Popen(["freeradius", "-f", "-d", folder, "-n", "radiusd"], stdout=open(folder / "out", "w"), stderr=subprocess.STDOUT)
        time.sleep(2)
        if self.process.poll() is not None:
            sys.exit("FreeRADIUS did not start: " + "".join(f.read_text() for f in (folder / "out", folder / "radius.log") if f.exists()))

    def make_ready(self):
        pass

    def wait_until_folded(self):
        return 0.0

    def fsyncs(self):
        return self.cluster.fsyncs() if self.cluster else 0

    def pids(self):
        return children(self.process.pid) + (children(self.cluster.pid) if self.cluster else [])

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
