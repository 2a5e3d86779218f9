#!/usr/bin/env python3
"""Devices: from a push to the modem's reset, with thousands of jobs behind it; and what 100,000 of them cost.

usage: bench/devices.py resets [--modems N] [--bulk N] [--rounds R] [--postgres]
       bench/devices.py fleet  [--devices N]

`resets`: N modems have fetched their file, each from an address of its own, and answer SNMP (one process answers for all,
from the address that was asked). --bulk jobs in the bulk lane become due, one for each of as many other modems, by the
statement with which the daemon begins jobs (a catalog change makes them bit by bit, so that 20,000 never wait); at once as
many pushes as there are measured modems go out together, each on a connection of its own and each with another plan.
Measured for each: push sent → answer, push sent → SNMP SET of docsDevResetNow, and answer → SET. One round goes without
the bulk jobs, for comparison.

`fleet`: N accounts with a modem and a login each, pushed over the API. Start, memory, and a dry run of a catalog change.

Builds the release binary and the push generator, starts every server itself on loopback ports and ends it by its pid.
"""
import argparse, collections, json, os, pathlib, re, resource, selectors, socket, sqlite3, statistics, struct, subprocess, sys, tempfile, time, traceback

import accounting
from accounting import ROOT, TARGET

CATALOG = (ROOT / "bench" / "catalog.toml").read_text()
COMMUNITY = "bench-community"
NET = "127.91"
# <linux/in.h>; Python names it from 3.12 on.
IP_PKTINFO = 8
# For modems that are measured; a push goes from one to the other.
PLANS = ("solo-a", "solo-b")
LIMIT = 300


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["resets", "fleet"])
    parser.add_argument("--modems", type=int, default=1000)
    parser.add_argument("--bulk", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", type=int, default=100000)
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own instead of SQLite")
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if not options.no_build:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "lastmile", "--example", "push_load"], cwd=ROOT, check=True)
    print(f"load average at the beginning: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
        os.chmod(folder, 0o755)
        folder = pathlib.Path(folder)
        cluster = accounting.Postgres(folder / "pg") if options.postgres else None
        try:
            database = Database(folder, cluster)
            {"resets": resets, "fleet": fleet}[options.what](folder, database, options)
        finally:
            if cluster:
                cluster.stop()
    print(f"\nload average at the end: {os.getloadavg()[0]:.1f}")


# --- push to reset ---------------------------------------------------------------------------------------------------

def resets(folder, database, options):
    daemon = Lastmile(folder, database)
    rows = []
    try:
        daemon.apply(catalog(bulk="100M"))
        daemon.serve()
        modems = [f"02aa{number:08x}" for number in range(options.modems)]
        addresses = {mac: f"{NET}.{1 + number // 250}.{1 + number % 250}" for number, mac in enumerate(modems)}
        burst(daemon, [document(mac, PLANS[0], 1) for mac in modems], 32)
        daemon.load(options.bulk)
        daemon.wait_for_no_jobs()
        answering = Responder(daemon.snmp)
        try:
            for turn in range(options.rounds + 1):
                boot(daemon, answering, addresses)
                with_bulk = turn > 0
                if with_bulk:
                    database.begin_bulk_jobs(options.bulk)
                behind = database.bulk_jobs()
                pushes = [document(mac, PLANS[(turn + 1) % 2], turn + 2) for mac in modems]
                sent, answered = burst(daemon, pushes, len(pushes))
                reset = answering.wait_for(len(modems))
                left = database.bulk_jobs()
                rows.append((with_bulk, behind, behind - left, waits(sent, answered), waits(sent, by_number(reset, addresses)),
                             waits(answered, by_number(reset, addresses))))
                print(f"round {turn}: push to answer {shown(rows[-1][3])}, push to reset {shown(rows[-1][4])}", flush=True)
                daemon.wait_for_no_jobs(but_waiting=True)
        finally:
            answering.stop()
    finally:
        daemon.stop()
    print(f"\npush to reset sent, {database.name}: {options.modems:,} pushes in flight, {os.cpu_count()} cores for daemon, load and "
          f"modems; with bulk jobs the median of {options.rounds} rounds\n")
    print("| bulk jobs behind | done meanwhile | what | p50 ms | p90 ms | p99 ms | greatest ms |\n|---|---|---|---|---|---|---|")
    for with_bulk in (False, True):
        chosen = [row for row in rows if row[0] == with_bulk]
        middle = lambda values: statistics.median(values)
        for at, what in ((3, "push sent to its answer"), (4, "**push sent to reset sent**"), (5, "answer to reset sent")):
            numbers = [middle([share(row[at], part) for row in chosen]) * 1000 for part in (0.5, 0.9, 0.99, 1)]
            print(f"| {middle([row[1] for row in chosen]):,.0f} | {middle([row[2] for row in chosen]):,.0f} | {what} | "
                  + " | ".join(f"{number:,.0f}" for number in numbers) + " |")


def document(mac, plan, revision):
    body = {"source_revision": revision, "status": "active", "bill_cycle": "c15", "name": "Bench",
            "devices": [{"id": "gw1", "cm_mac": mac}],
            "services": [{"id": "s1", "type": "internet", "plan": plan, "device": "gw1", "billing_from": "2026-11-01"}]}
    return f"solo-{mac}", json.dumps(body)


def boot(daemon, answering, addresses):
    """Every modem fetches the file that is on offer for it, from its address, and says so when it is asked."""
    names = {device["mac"].replace(":", ""): device["config_file"] for device in daemon.devices() if device["mac"].replace(":", "") in addresses}
    answering.tell({addresses[mac]: name for mac, name in names.items()})
    for mac, name in names.items():
        fetch(addresses[mac], daemon.tftp, name)
    deadline = time.monotonic() + LIMIT
    while True:
        applied = sum(device["state"] == "applied" for device in daemon.devices() if device["mac"].replace(":", "") in addresses)
        if applied == len(addresses):
            return daemon.wait_for_no_jobs()
        assert time.monotonic() < deadline, f"only {applied} modems run their file"
        time.sleep(1)


def fetch(source, port, name):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as modem:
        modem.bind((source, 0))
        modem.settimeout(1)
        for _ in range(10):
            modem.sendto(b"\0\1" + name.encode() + b"\0octet\0", ("127.0.0.1", port))
            try:
                data, server = modem.recvfrom(1024)
            except TimeoutError:
                continue
            assert data[:4] == b"\0\3\0\1" and len(data) < 516, f"{name}: {data[:40]}"
            modem.sendto(b"\0\4\0\1", server)
            return
    sys.exit(f"{name} was not answered")


def burst(daemon, documents, connections):
    """Sends pushes over so many connections; when each was sent and answered."""
    key, pending = daemon.key, collections.deque(enumerate(documents))
    sent, answered, selector = {}, {}, selectors.DefaultSelector()
    opened = [socket.create_connection(("127.0.0.1", daemon.http)) for _ in range(connections)]

    def request(connection):
        number, (account, body) = pending.popleft()
        head = (f"PUT /v1/tenants/bench/accounts/{account} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
        sent[number] = time.monotonic()
        connection.sendall((head + body).encode())
        return [number, b""]

    for connection in opened:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ, request(connection))
    deadline = time.monotonic() + LIMIT
    while len(answered) < len(documents):
        assert time.monotonic() < deadline, "the pushes are not answered"
        for ready, _ in selector.select(1):
            octets = ready.fileobj.recv(65536)
            assert octets, "a connection was closed"
            state = ready.data
            state[1] += octets
            head, _, body = state[1].partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.I)
            if not length or len(body) < int(length[1]):
                continue
            answered[state[0]] = time.monotonic()
            assert head.split()[1] in (b"200", b"201"), state[1][:600]
            if pending:
                state[:] = request(ready.fileobj)
            else:
                selector.unregister(ready.fileobj)
    for connection in opened:
        connection.close()
    return sent, answered


def by_number(reset, addresses):
    return {number: reset[address] for number, address in enumerate(addresses.values()) if address in reset}


def waits(begun, ended):
    return sorted(ended[number] - begun[number] for number in ended)


def share(values, part):
    return values[int((len(values) - 1) * part)]


def shown(values):
    return " ".join(f"{share(values, part) * 1000:,.0f}" for part in (0.5, 0.9, 0.99, 1)) + " ms (p50 p90 p99 greatest)"


class Responder:
    """The SNMP side of every modem, in a process of its own: answers from the address that was asked and notes each reset."""

    RESET_NOW, CONFIG_FILE = bytes.fromhex("2b060102014501010300"), bytes.fromhex("2b060102014501040500")
    FIXED = {
        bytes.fromhex("2b060102014501040100"): b"\2\1\1",  # docsDevServerBootState: operational
        bytes.fromhex("2b060102010a7f010202010102"): b"\2\1\x0c",  # docsIfCmStatusValue.2: operational
        bytes.fromhex("2b06010401a30b0201140101010102"): b"\2\1\x0c",  # docsIf3CmStatusValue.2
        RESET_NOW: b"\2\1\2",
    }

    def __init__(self, port):
        self.line, theirs = socket.socketpair()
        self.child = os.fork()
        if self.child == 0:
            try:
                self.line.close()
                self.answer(port, theirs)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        theirs.close()
        self.stream = self.line.makefile("rw")

    def ask(self, words):
        self.stream.write(json.dumps(words) + "\n")
        self.stream.flush()
        return json.loads(self.stream.readline())

    def tell(self, files):
        """The files that modems run from now on; resets are forgotten."""
        self.ask(["files", files])

    def wait_for(self, count):
        deadline = time.monotonic() + LIMIT
        while True:
            if self.ask(["count"]) >= count:
                return self.ask(["resets"])
            if time.monotonic() > deadline:
                print("only", self.ask(["count"]), "of", count, "modems were reset", flush=True)
                return self.ask(["resets"])
            time.sleep(0.2)

    def stop(self):
        self.stream.close()
        self.line.close()
        os.waitpid(self.child, 0)

    def answer(self, port, line):
        agent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        agent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        agent.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        agent.bind(("0.0.0.0", port))
        selector = selectors.DefaultSelector()
        selector.register(agent, selectors.EVENT_READ)
        selector.register(line, selectors.EVENT_READ)
        stream, files, resets = line.makefile("rw"), {}, {}
        while True:
            for ready, _ in selector.select():
                if ready.fileobj is agent:
                    request, ancillary, _, peer = agent.recvmsg(2048, 64)
                    asked = ancillary[0][2][8:12]
                    modem = socket.inet_ntoa(asked)
                    reply = self.reply(request, modem, files, resets)
                    if reply:
                        source = struct.pack("=I4s4s", 0, asked, b"\0\0\0\0")
                        agent.sendmsg([reply], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, peer)
                    continue
                command = stream.readline()
                if not command:
                    return
                word, *rest = json.loads(command)
                if word == "files":
                    files = {address: name.encode() for address, name in rest[0].items()}
                    resets = {}
                print(json.dumps(resets if word == "resets" else len(resets)), file=stream, flush=True)

    def reply(self, request, modem, files, resets):
        """SNMPv2c GET and SET, RFC 3416."""
        (_, message, _), = elements(request)
        (_, _, version), (_, community, whole), (pdu, inside, _) = elements(message)
        if community != COMMUNITY.encode() or pdu not in (0xA0, 0xA3):
            return None
        (_, _, number), _, _, (_, binds, _) = elements(inside)
        answers = b""
        for _, bind, _ in elements(binds):
            (_, name, spelt), (_, _, value) = elements(bind)
            if pdu == 0xA3:
                if name == self.RESET_NOW:
                    resets.setdefault(modem, time.monotonic())
            elif name == self.CONFIG_FILE and modem in files:
                value = element(4, files[modem])
            else:
                value = self.FIXED.get(name, b"\x80\0")
            answers += element(0x30, spelt + value)
        return element(0x30, version + whole + element(0xA2, number + b"\2\1\0\2\1\0" + element(0x30, answers)))


def elements(octets):
    """BER elements: tag, contents, and the whole."""
    found, at = [], 0
    while at < len(octets):
        begun, length = at, octets[at + 1]
        at += 2
        if length > 0x80:
            many = length & 0x7F
            length = int.from_bytes(octets[at:at + many], "big")
            at += many
        found.append((octets[begun], octets[at:at + length], octets[begun:at + length]))
        at += length
    return found


def element(tag, contents):
    length = len(contents)
    if length < 0x80:
        return bytes((tag, length)) + contents
    return bytes((tag, 0x82, length >> 8, length & 0xFF)) + contents


# --- 100,000 devices -------------------------------------------------------------------------------------------------

def fleet(folder, database, options):
    daemon = Lastmile(folder, database)
    try:
        daemon.apply(catalog(bulk="100M"))
        daemon.serve()
        made = daemon.load(options.devices)
        print(f"pushed: {json.dumps(made)}", flush=True)
        daemon.wait_for_no_jobs()
        worked = daemon.resident()
        rows = []
        for dhcp in (False, True):
            daemon.stop()
            ready = []
            for turn in range(3):
                began = time.monotonic()
                daemon.serve(dhcp)
                ready.append((time.monotonic() - began) * 1000)
                if turn < 2:
                    daemon.stop()
            time.sleep(5)
            idle = daemon.resident()
            seconds, peak, told = daemon.dry_run(catalog(bulk="200M"))
            rows.append((dhcp, statistics.median(ready), idle, daemon.resident(), seconds, peak))
            time.sleep(1)
    finally:
        daemon.stop()
    print(f"\n{options.devices:,} devices, {database.name}, {database.megabytes():,.0f} MB of database; pushed over the API, resident after "
          f"their jobs {worked:.0f} MB; ready: median of 3 starts\n")
    print("| daemon | ready ms | resident MB, idle | resident MB after a dry run | the dry run, s | the dry run's own MB |\n|---|---|---|---|---|---|")
    for dhcp, ready, idle, after, seconds, peak in rows:
        name = "with `[dhcp] builtin`" if dhcp else "without DHCP"
        print(f"| {name} | {ready:,.0f} | {idle:.0f} | {after:.0f} | {seconds:.1f} | {peak} |")
    print(f"\nthe dry run says: {told}")


# --- the daemon ------------------------------------------------------------------------------------------------------

def catalog(bulk):
    plans = "".join(f'\n[[plan]]\nid = "{name}"\nservice = "internet"\ntariff = "res-100"\n'
                    f'docsis = {{ downstream = "{rate}", upstream = "20M", max_cpe = 2, version = "3.0" }}\n'
                    for name, rate in zip(PLANS, ("100M", "300M")))
    return CATALOG.replace('downstream = "100M"', f'downstream = "{bulk}"') + plans


class Database:
    def __init__(self, folder, cluster):
        self.cluster = cluster
        self.name = "PostgreSQL" if cluster else "SQLite"
        self.file = folder / "lastmile.db"
        self.url = cluster.database() if cluster else f"sqlite://{self.file}"

    def number(self, statement):
        if self.cluster:
            asked = subprocess.run(["psql", "-h", "127.0.0.1", "-p", str(self.cluster.port), "-U", "postgres", "-d",
                                    f"bench{self.cluster.count}", "-Xqtc", statement], check=True, capture_output=True, text=True)
            return int(asked.stdout)
        with sqlite3.connect(f"file:{self.file}?mode=ro", uri=True, timeout=30) as connection:
            return connection.execute(statement).fetchone()[0]

    def begin_bulk_jobs(self, count):
        now = time.time_ns() // 1000
        statement = f"""INSERT INTO job
                (element_id, tenant, account_id, kind, lane, state, attempt, target_revision, run_at, created_at, updated_at)
            SELECT id, tenant, account_id, kind, 1, 'pending', 0, desired_revision, {now}, {now}, {now} FROM element
            WHERE kind = 'cm' AND key NOT LIKE '02:aa:%'
              AND NOT EXISTS (SELECT 1 FROM job WHERE element_id = element.id AND finished_at IS NULL) LIMIT {count}"""
        if self.cluster:
            return self.cluster.sql(f"bench{self.cluster.count}", "-c", statement)
        with sqlite3.connect(self.file, timeout=30) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(statement)

    def bulk_jobs(self):
        return self.number("SELECT COUNT(*) FROM job WHERE finished_at IS NULL AND kind = 'cm' AND lane = 1")

    def jobs(self, but_waiting):
        states = "('pending', 'running')" if but_waiting else "('pending', 'running', 'waiting')"
        return self.number(f"SELECT COUNT(*) FROM job WHERE finished_at IS NULL AND kind = 'cm' AND state IN {states}")

    def megabytes(self):
        if self.cluster:
            return self.number("SELECT pg_database_size(current_database())") / 1e6
        return sum(path.stat().st_size for path in self.file.parent.glob("*.db*")) / 1e6


class Lastmile:
    def __init__(self, folder, database):
        self.folder, self.database = folder, database
        self.http, self.tftp, self.dhcp, self.snmp = (accounting.free_port(kind) for kind in (
            socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_DGRAM, socket.SOCK_DGRAM))
        self.process = None
        (folder / "key").write_text("0123456789abcdef" * 4)
        (folder / "key").chmod(0o600)
        self.config(False)
        self.command = [TARGET / "release/lastmile", "--config", folder / "lastmile.toml"]
        self.run("migrate")
        self.key = None

    def config(self, dhcp):
        subnets = f"""[dhcp]
driver = "builtin"
listen = "127.0.0.1:{self.dhcp}"
""" if dhcp else ""
        network = f"""[[cmts.network]]
kind = "cm"
subnet = "{NET}.0.0/16"
pools = ["{NET}.8.0-{NET}.250.255"]
""" if dhcp else ""
        path = self.folder / "lastmile.toml"
        path.write_text(f"""[database]
url = "{self.database.url}"
[secrets]
key_file = "{self.folder}/key"
[api]
listen = "127.0.0.1:{self.http}"
[tftp]
listen = "127.0.0.1:{self.tftp}"
[docsis]
shared_secret = "example"
[snmp]
community = "{COMMUNITY}"
port = {self.snmp}
poll_minutes = 0
{subnets}
[[cmts]]
name = "cmts1"
networks = ["{NET}.0.0/16"]
{network}
[log]
format = "text"
level = "error"
""")
        path.chmod(0o600)

    def run(self, *words):
        return subprocess.run([*self.command, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    def apply(self, text):
        path = self.folder / "catalog.toml"
        path.write_text(text)
        self.run("catalog", "apply", path)
        if not self.key:
            self.key = json.loads(self.run("--json", "key", "create", "--tenant", "bench", "--role", "push"))["key"]
            (self.folder / "api-key").write_text(self.key)

    def dry_run(self, text):
        path = self.folder / "dry.toml"
        path.write_text(text)
        began = time.monotonic()
        with open(self.folder / "told", "w+") as told:
            process = subprocess.Popen([*self.command, "catalog", "apply", path, "--dry-run"], stdout=told)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0, "the dry run failed"
            told.seek(0)
            return time.monotonic() - began, used.ru_maxrss // 1024, " ".join(told.read().split())

    def serve(self, dhcp=False):
        self.config(dhcp)
        self.process = subprocess.Popen([*self.command, "serve"])
        accounting.wait_for_http(self.http, 0.002)

    def load(self, pushes):
        if not pushes:
            return {}
        done = subprocess.run([TARGET / "release/examples/push_load", f"127.0.0.1:{self.http}", "bench", self.folder / "api-key",
                               str(pushes), "16"], check=True, capture_output=True, text=True)
        return json.loads(done.stdout.strip().splitlines()[-1])

    def devices(self):
        return json.loads(self.run("--json", "device", "list"))

    def wait_for_no_jobs(self, but_waiting=False):
        deadline = time.monotonic() + LIMIT
        while self.database.jobs(but_waiting):
            assert time.monotonic() < deadline, "jobs are left"
            time.sleep(0.5)

    def resident(self):
        return accounting.resident(self.process.pid)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


if __name__ == "__main__":
    main()
