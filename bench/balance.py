"""What a balance costs: `bench/balance.py LASTMILE [ACCOUNTS] [MONTHS] [QUERIES]`.

Makes a SQLite database of accounts that were online all the time, a ledger entry an hour for MONTHS, bills the periods that
are over, and asks the daemon for balances over HTTP, one after another on one connection. Prints one JSON object. LASTMILE is
the program; figures of a debug build say nothing.
"""
import http.client
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

CATALOG = """
[tenant]
id = "acme"
currency = "USD"
timezone = "America/Chicago"
[[bill_cycle]]
id = "c1"
anchor_day = 1
every = "month"
[[plan]]
id = "p"
service = "internet"
tariff = "t"
[[tariff]]
id = "t"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "access"
type = "recurring"
amount = "49.95"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
allowance = { amount = "500" }
model = "graduated"
tiers = [ { up_to = "500", unit_amount = "0.05" }, { unit_amount = "0.02" } ]
[[tariff.tax]]
id = "vat"
rate = "10"
"""
HOUR = 3_600_000_000


def main():
    program, *numbers = sys.argv[1:]
    accounts, months, queries = [int(n) for n in numbers] + [50, 1, 2000][len(numbers):]
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        print(json.dumps(measure(program, folder, port, accounts, months, queries)))


def measure(program, folder, port, accounts, months, queries):
    def run(*arguments):
        command = [program, "--config", f"{folder}/lastmile.toml", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    write(f"{folder}/key", "0123456789abcdef" * 4)
    os.chmod(f"{folder}/key", 0o600)
    write(f"{folder}/catalog.toml", CATALOG)
    write(f"{folder}/lastmile.toml", f"""
[database]
url = "sqlite://{folder}/lastmile.db"
[secrets]
key_file = "{folder}/key"
[api]
listen = "127.0.0.1:{port}"
""")
    run("migrate")
    run("catalog", "apply", f"{folder}/catalog.toml")
    key = json.loads(run("--json", "key", "create", "--tenant", "acme", "--role", "admin"))["key"]
    daemon = serve(program, folder, port)
    for number in range(1, accounts + 1):
        ask(port, key, "PUT", number, json.dumps(account(number)))
    stop(daemon)
    fill(f"{folder}/lastmile.db", months * 720)
    today = time.gmtime()
    for back in range(months, 0, -1):
        month = today.tm_year * 12 + today.tm_mon - 1 - back
        period = f"{month // 12}-{month % 12 + 1:02d}"
        run("bill", "run", "--tenant", "acme", "--cycle", "c1", "--period", period)
    daemon = serve(program, folder, port)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    took = []
    for query in range(queries):
        begun = time.perf_counter()
        ask(port, key, "GET", f"{1 + query % accounts}/balance", None, connection)
        took.append((time.perf_counter() - begun) * 1e3)
    stop(daemon)
    took.sort()
    at = lambda share: round(took[int((len(took) - 1) * share)], 2)
    return {"accounts": accounts, "ledger_entries_each": months * 720, "queries": queries,
            "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}


def account(number):
    radius = {"username": f"u{number}@acme", "password": "pw"}
    service = {"id": f"{number}-1", "type": "internet", "plan": "p", "billing_from": "2026-01-01", "radius": radius}
    return {"status": "active", "bill_cycle": "c1", "services": [service]}


def fill(file, hours):
    """A ledger entry for every service and hour up to now."""
    database = sqlite3.connect(file)
    first = int(time.time() * 1e6) // HOUR * HOUR - hours * HOUR
    for service, owner in database.execute("SELECT id, account_id FROM service").fetchall():
        rows = [(owner, hour + 1, service, service, first + hour * HOUR, first + (hour + 1) * HOUR, 40_000_000,
                 300_000_000 + (hour * 7919) % 900_000_000, 3600, 0, "usage", first + (hour + 1) * HOUR)
                for hour in range(hours)]
        database.executemany(
            "INSERT INTO ledger (account_id, sequence, service_id, session_id, from_at, until_at, in_octets, out_octets,"
            " seconds, sessions, cause, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    database.commit()
    database.close()


def serve(program, folder, port):
    log = open(f"{folder}/log", "a")
    daemon = subprocess.Popen([program, "--config", f"{folder}/lastmile.toml", "serve"], stdout=log, stderr=log)
    for _ in range(300):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return daemon
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the daemon is not ready after 30 s")


def stop(daemon):
    daemon.terminate()
    daemon.wait()


def ask(port, key, method, path, body, connection=None):
    connection = connection or http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request(method, f"/v1/tenants/acme/accounts/{path}", body, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status} {text.decode()}")


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


main()
