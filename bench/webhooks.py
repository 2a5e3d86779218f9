#!/usr/bin/env python3
"""Signed webhooks a second to a local receiver that verifies each, alone and while another receiver hangs.

usage: bench/webhooks.py [--events N] [--rounds R] [--no-build]

The events stand in the outbox when the daemon starts: what is measured is claiming, reading, signing, sending on kept
connections, and recording. Every event must come, each with a signature that fits, those of a subject in order.
Builds the release binary, starts every server itself on loopback ports and ends it by its pid.
"""
import argparse, asyncio, base64, hashlib, hmac, json, multiprocessing, os, pathlib, sqlite3, statistics, subprocess, tempfile, time, urllib.request

import accounting
from accounting import ROOT, TARGET

CATALOG = ROOT / "bench" / "catalog.toml"
SUBJECTS = 1000


class Receiver(asyncio.Protocol):
    """Answers 204 as fast as Python can; several requests may come in one piece."""

    def __init__(self, state):
        self.state, self.held = state, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, octets):
        self.held += octets
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            headers = dict(line.split(b": ", 1) for line in self.held[:end].lower().split(b"\r\n")[1:])
            raw = dict(line.split(b": ", 1) for line in self.held[:end].split(b"\r\n")[1:])
            length = int(headers[b"content-length"])
            if len(self.held) < end + 4 + length:
                return
            body, self.held = self.held[end + 4:end + 4 + length], self.held[end + 4 + length:]
            signature = next(value for name, value in raw.items() if name.lower() == b"webhook-signature")
            self.state.take(headers[b"webhook-id"], headers[b"webhook-timestamp"], signature, body)
            self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


class State:
    def __init__(self, secret, wanted):
        self.key, self.wanted = base64.b64decode(secret.removeprefix("whsec_")), wanted
        self.seen, self.last, self.first_at, self.copies = set(), {}, None, 0
        self.done = asyncio.Event()

    def take(self, name, at, signature, body):
        self.first_at = self.first_at or time.monotonic()
        digest = hmac.new(self.key, name + b"." + at + b"." + body, hashlib.sha256).digest()
        assert signature == b"v1," + base64.b64encode(digest), "a signature does not fit"
        number = int(name.rsplit(b".", 1)[1])
        if number in self.seen:
            self.copies += 1
            return
        subject = number % SUBJECTS
        assert self.last.get(subject, 0) < number, "out of order"
        self.last[subject] = number
        self.seen.add(number)
        if len(self.seen) == self.wanted:
            self.last_at = time.monotonic()
            self.done.set()


def receive(port, secret, wanted, tell):
    async def main():
        state = State(secret, wanted)
        server = await asyncio.get_running_loop().create_server(lambda: Receiver(state), "127.0.0.1", port)
        tell.send("listening")
        await asyncio.wait_for(state.done.wait(), 300)
        tell.send({"seconds": state.last_at - state.first_at, "copies": state.copies})
        server.close()

    asyncio.run(main())


def hang(port, tell):
    async def main():
        async def serve(reader, _writer):
            while await reader.read(65536):
                pass

        await asyncio.start_server(serve, "127.0.0.1", port)
        tell.send("listening")
        await asyncio.sleep(600)

    asyncio.run(main())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    if not options.no_build:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "lastmile"], cwd=ROOT, check=True)
    rows = {}
    with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
        os.chmod(folder, 0o755)
        folder = pathlib.Path(folder)
        cluster = accounting.Postgres(folder / "pg")
        try:
            for turn in range(options.rounds):
                for name in ("SQLite", "PostgreSQL"):
                    for hanging in (False, True):
                        work = folder / f"{name}{turn}{hanging}"
                        work.mkdir(mode=0o755)
                        postgres = cluster if name == "PostgreSQL" else None
                        url = cluster.database() if postgres else f"sqlite://{work}/lastmile.db"
                        rows.setdefault((name, hanging), []).append(measure(work, url, postgres, options.events, hanging))
        finally:
            cluster.stop()
    print(f"\nwebhooks, {options.events} events of {SUBJECTS} subjects, median of {options.rounds} rounds in turn\n")
    print("| database | receivers | deliveries/s | least of the rounds | sent twice | daemon CPU us each |\n|---|---|---|---|---|---|")
    for (name, hanging), results in rows.items():
        middle = lambda key: statistics.median(result[key] for result in results)
        print(f"| {name} | {'one well, one hangs' if hanging else 'one'} | {middle('rate'):,.0f} "
              f"| {min(result['rate'] for result in results):,.0f} | {middle('copies'):.0f} | {middle('cpu_us'):.0f} |")


def measure(work, url, cluster, events, hanging):
    daemon = accounting.Lastmile(work, url, cluster)
    command = [TARGET / "release/lastmile", "--config", daemon.config]
    subprocess.run([*command, "catalog", "apply", CATALOG], check=True, stdout=subprocess.DEVNULL)
    made = subprocess.run([*command, "--json", "key", "create", "--tenant", "bench", "--role", "admin"],
                          check=True, capture_output=True, text=True)
    key = json.loads(made.stdout)["key"]
    daemon.stop()
    daemon.config.write_text(daemon.config.read_text().replace("[log]", '[webhooks]\nallow = ["127.0.0.0/8"]\n[log]'))
    daemon.spawn()
    accounting.wait_for_http(daemon.http, 0.05)
    port, hanging_port = (accounting.free_port(accounting.socket.SOCK_STREAM) for _ in range(2))
    secret = webhook(daemon, key, port)
    if hanging:
        webhook(daemon, key, hanging_port)
    daemon.stop()
    fill(work, url, cluster, events)
    ours, theirs = multiprocessing.Pipe()
    receivers = [multiprocessing.Process(target=receive, args=(port, secret, events, theirs), daemon=True)]
    if hanging:
        receivers.append(multiprocessing.Process(target=hang, args=(hanging_port, theirs), daemon=True))
    for process in receivers:
        process.start()
        assert ours.recv() == "listening"
    daemon.spawn()
    accounting.wait_for_http(daemon.http, 0.002)
    before = daemon.cpu_seconds()
    result = ours.recv()
    result["cpu_us"] = (daemon.cpu_seconds() - before) * 1e6 / events
    result["rate"] = events / result["seconds"]
    daemon.stop()
    for process in receivers:
        process.terminate()
    return result


def webhook(daemon, key, port):
    asked = urllib.request.Request(
        f"http://127.0.0.1:{daemon.http}/v1/tenants/bench/webhooks", json.dumps({"url": f"http://127.0.0.1:{port}/hook"}).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        return json.loads(answer.read())["secret"]


def fill(work, url, cluster, events):
    payload = json.dumps({"account": "100234", "source": "default", "revision": 7, "source_revision": 7, "status": "active"})
    if cluster:
        database = url.split("?")[0].rsplit("/", 1)[1]
        cluster.sql(database, "-c", f"INSERT INTO event SELECT 'bench', n, 'account.updated', 'default/' || n % {SUBJECTS}, "
                    f"1760000000000000 + n, '{payload}' FROM generate_series(1, {events}) AS n; "
                    f"INSERT INTO event_sequence VALUES ('bench', {events})")
        return
    with sqlite3.connect(work / "lastmile.db") as database:
        rows = (("bench", n, "account.updated", f"default/{n % SUBJECTS}", 1760000000000000 + n, payload) for n in range(1, events + 1))
        database.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", rows)
        database.execute("INSERT INTO event_sequence VALUES ('bench', ?)", (events,))
    database.close()


if __name__ == "__main__":
    main()
