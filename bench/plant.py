#!/usr/bin/env python3
"""The plant side by side: TFTP beside tftpd-hpa, a boot storm through the builtin DHCP server and TFTP, DHCP beside Kea.

usage: bench/plant.py [--devices N] [--transfers N] [--boots N] [--workers W] [--rounds R]

Builds the release binary and the load programs, starts every server itself and ends it by its pid; servers and load share
the machine's cores and take turns, so that a busy machine is busy for all. Files are those of modems with accounts. A lease
of the builtin server is on the disk before its ACK; Kea keeps its in memory, without a file. Kea and perfdhcp run in network
namespaces (root); perfdhcp reports what it drops, and a rate counts when it drops less than 1 %.
"""
import argparse, json, os, pathlib, re, socket, statistics, subprocess, tempfile, time

import accounting
from accounting import ROOT, TARGET

CATALOG = ROOT / "bench" / "catalog.toml"
NET = "127.90"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--transfers", type=int, default=15000)
    parser.add_argument("--boots", type=int, default=10000)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", default="1000,2000,4000", help="for perfdhcp; empty: without Kea")
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    if not options.no_build:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "lastmile", "--example", "push_load",
                        "--example", "plant_load"], cwd=ROOT, check=True)
    rows = {}
    with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
        os.chmod(folder, 0o755)
        folder = pathlib.Path(folder)
        plant = Plant(folder, options.devices)
        try:
            files = folder / "tftp"
            files.mkdir(mode=0o755)
            for name in plant.names:
                (files / name).write_bytes(plant.sample)
            peer_port = accounting_port()
            peer = subprocess.Popen(["in.tftpd", "--listen", "--foreground", "--user", "root", "--address",
                                     f"127.0.0.1:{peer_port}", "--secure", str(files)],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.5)
            try:
                for _ in range(options.rounds):
                    for name, port in (("TFTP, Lastmile", plant.tftp), ("TFTP, tftpd-hpa", peer_port)):
                        rows.setdefault(name, []).append(load("tftp", f"127.0.0.1:{port}", plant.name_file,
                                                              options.transfers, options.workers))
            finally:
                peer.terminate()
                peer.wait()
            for _ in range(options.rounds):
                rows.setdefault("boots (DHCP and TFTP), Lastmile", []).append(
                    load("boot", f"127.0.0.1:{plant.dhcp}", f"127.0.0.1:{plant.tftp}", f"{NET}.0.0", plant.mac_file,
                         options.boots, options.workers))
            plant.resident = resident(plant.daemon.pid)
        finally:
            plant.stop()
    print(f"\nplant: {options.devices:,} modems with accounts, {options.workers} at a time, median of {options.rounds} rounds, "
          f"{os.cpu_count()} cores for servers and load\n")
    head = ("what", "per second", "p50 ms", "p99 ms", "repeated", "failed")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, results in rows.items():
        middle = lambda key: statistics.median(result[key] for result in results)
        spread = ", ".join(f"{result['per_second']:,.0f}" for result in results)
        print(f"| {name} | {middle('per_second'):,.0f} ({spread}) | {middle('p50_ms'):.1f} | {middle('p99_ms'):.1f} "
              f"| {sum(r['repeated'] for r in results)} | {sum(r['failed'] for r in results)} |")
    print(f"\nresident after the storm: {plant.resident} MB")
    rates = [int(rate) for rate in options.rates.split(",") if rate]
    if rates:
        with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
            beside_kea(pathlib.Path(folder), rates)


def beside_kea(folder, rates):
    """perfdhcp in a namespace against us, then from here against Kea in the namespace."""
    space, link = "lmbench", "lmbench0"
    def ip(*words):
        subprocess.run(["ip", *words], check=True)
    ip("netns", "add", space)
    try:
        ip("link", "add", link, "type", "veth", "peer", "name", "inside", "netns", space)
        ip("addr", "add", "10.67.0.2/16", "dev", link)
        ip("link", "set", link, "up")
        ip("-n", space, "addr", "add", "10.67.0.1/16", "dev", "inside")
        ip("-n", space, "link", "set", "inside", "up")
        ip("-n", space, "link", "set", "lo", "up")
        config = folder / "lastmile.toml"
        config.write_text(f"""[database]
url = "sqlite://{folder}/lastmile.db"
[api]
listen = "127.0.0.1:{accounting_port()}"
[dhcp]
driver = "builtin"
listen = "10.67.0.2:67"
tftp_server = "10.67.0.2"
[[cmts]]
name = "cmts1"
relays = ["10.67.0.1"]
[[cmts.network]]
kind = "cm"
subnet = "10.67.0.0/16"
pools = ["10.67.8.0-10.67.250.255"]
[log]
level = "warn"
""")
        command = [str(TARGET / "release/lastmile"), "--config", str(config)]
        subprocess.run([*command, "migrate"], check=True, stdout=subprocess.DEVNULL)
        kea = folder / "kea.json"
        kea.write_text(json.dumps({"Dhcp4": {
            "interfaces-config": {"interfaces": ["inside"], "dhcp-socket-type": "udp"},
            "lease-database": {"type": "memfile", "persist": False}, "valid-lifetime": 3600,
            "client-classes": [{"name": "cm", "test": "substring(option[60].hex,0,6)=='docsis'",
                                "boot-file-name": "unprovisioned.cm", "next-server": "10.67.0.1"}],
            "subnet4": [{"id": 1, "subnet": "10.67.0.0/16", "relay": {"ip-addresses": ["10.67.0.2"]},
                         "pools": [{"pool": "10.67.8.0-10.67.250.255"}]}],
            "loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": str(folder / "kea.log")}]}]}}))
        print("\n| perfdhcp | asked/s | 4-way exchanges/s | first half dropped | second half dropped | average delay ms |")
        print("|---|---|---|---|---|---|")
        inside = ["ip", "netns", "exec", space]
        for name, server, client in (
            ("Lastmile, leases on the disk", [*command, "serve"], [*inside, "perfdhcp", "-l", "10.67.0.1"]),
            ("Kea, leases in memory", [*inside, "kea-dhcp4", "-c", str(kea)], ["perfdhcp", "-l", "10.67.0.2"]),
        ):
            target = "10.67.0.2" if "serve" in server else "10.67.0.1"
            running = subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       env={**os.environ, "KEA_PIDFILE_DIR": str(folder), "KEA_LOCKFILE_DIR": str(folder)})
            time.sleep(3)
            try:
                for rate in rates:
                    done = subprocess.run([*client, "-4", "-r", str(rate), "-R", "20000", "-p", "5",
                                           "-o", "60,646f63736973332e313a", target], capture_output=True, text=True)
                    found = lambda pattern: re.findall(pattern, done.stdout)
                    drops = found(r"drops ratio: ([0-9.]+)")
                    delays = found(r"avg delay: ([0-9.]+)")
                    reached = found(r"Rate: ([0-9.]+)")
                    print(f"| {name} | {rate} | {float(reached[0]):,.0f} | {float(drops[0]):.1f} % | {float(drops[1]):.1f} % "
                          f"| {' and '.join(delays)} |", flush=True)
            finally:
                running.terminate()
                running.wait()
    finally:
        subprocess.run(["ip", "link", "del", link])
        subprocess.run(["ip", "netns", "del", space])


class Plant:
    def __init__(self, folder, devices):
        self.http, self.tftp, self.dhcp = accounting_port(), accounting_port(), accounting_port()
        config = folder / "lastmile.toml"
        config.write_text(f"""[database]
url = "sqlite://{folder}/lastmile.db"
[api]
listen = "127.0.0.1:{self.http}"
[tftp]
listen = "127.0.0.1:{self.tftp}"
[docsis]
shared_secret = "example"
[dhcp]
driver = "builtin"
listen = "127.0.0.1:{self.dhcp}"
[[cmts]]
name = "cmts1"
networks = ["{NET}.0.0/16"]
[[cmts.network]]
kind = "cm"
subnet = "{NET}.0.0/16"
pools = ["{NET}.8.0-{NET}.250.255"]
[log]
level = "warn"
""")
        config.chmod(0o600)
        command = [str(TARGET / "release/lastmile"), "--config", str(config)]
        subprocess.run([*command, "migrate"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*command, "catalog", "apply", str(CATALOG)], check=True, stdout=subprocess.DEVNULL)
        made = subprocess.run([*command, "--json", "key", "create", "--tenant", "bench", "--role", "push"],
                              check=True, capture_output=True, text=True)
        key = folder / "api-key"
        key.write_text(json.loads(made.stdout)["key"])
        self.daemon = subprocess.Popen([*command, "serve"], stdout=open(folder / "log", "w"), stderr=subprocess.STDOUT)
        wait_ready(self.http)
        subprocess.run([str(TARGET / "release/examples/push_load"), f"127.0.0.1:{self.http}", "bench", str(key),
                        str(devices), "8"], check=True, stdout=subprocess.DEVNULL)
        listed = json.loads(subprocess.run([*command, "--json", "device", "list"], check=True, capture_output=True, text=True).stdout)
        self.names = [device["config_file"] for device in listed]
        self.name_file, self.mac_file = folder / "names", folder / "macs"
        self.name_file.write_text("\n".join(self.names))
        self.mac_file.write_text("\n".join(device["mac"] for device in listed))
        deadline = time.time() + 60
        while True:
            got = subprocess.run(["curl", "--silent", "--max-time", "5", f"tftp://127.0.0.1:{self.tftp}/{self.names[-1]}"],
                                 capture_output=True)
            if got.returncode == 0:
                break
            assert time.time() < deadline, "the file is not served"
            time.sleep(0.2)
        self.sample = got.stdout
        time.sleep(3)

    def stop(self):
        self.daemon.terminate()
        self.daemon.wait()


def load(*arguments):
    done = subprocess.run([str(TARGET / "release/examples/plant_load"), *map(str, arguments)], check=True,
                          capture_output=True, text=True)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    print(arguments[0], json.dumps(result), flush=True)
    return result


def resident(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) // 1024


def wait_ready(port):
    deadline = time.time() + 30
    while time.time() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as stream:
                stream.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if b" 200 " in stream.recv(100):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("the daemon did not get ready")


def accounting_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
