#!/usr/bin/env python3
"""Helpers of run.sh and compare: check | startup | hey | report | ratios (standard library only)."""
import base64, collections, csv, json, os, shlex, socket, ssl, statistics as st, subprocess, sys, time, urllib.parse

CTX = ssl._create_unverified_context()


def post(url, body, timeout=10):
    u = urllib.parse.urlparse(url)
    with socket.create_connection((u.hostname, u.port), timeout) as raw, CTX.wrap_socket(raw, server_hostname="localhost") as s:
        s.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                  % (u.path.encode(), len(body)) + body)
        data = b"".join(iter(lambda: s.recv(65536), b""))
    head, _, rest = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest if b"chunked" not in head.lower() else rest[rest.index(b"{"):rest.rindex(b"}") + 1]


def check(url, *files):
    """The answer must be an allowed review of the same uid with a non-empty JSON patch."""
    for f in files:
        body = open(f, "rb").read()
        status, out = post(url, body)
        r = json.loads(out)["response"]
        patch = json.loads(base64.b64decode(r.get("patch") or "W10="))
        assert status == 200 and r["uid"] == json.loads(body)["request"]["uid"] and r["allowed"] and patch, (url, f, status, out[:300])


def startup(url, body_file, command, n="7"):
    """Median ms from spawn to the first 200, over n launches."""
    body, took = open(body_file, "rb").read(), []
    for _ in range(int(n)):
        t0 = time.perf_counter()
        p = subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    if post(url, body)[0] == 200:
                        break
                except (OSError, IndexError):
                    pass
                assert p.poll() is None and time.perf_counter() - t0 < 30, "did not start: " + command
                time.sleep(0.0005)
            took.append((time.perf_counter() - t0) * 1000)
        finally:
            p.kill(), p.wait()
    print(f"{st.median(took):.1f}")


def hey():
    """hey -o csv on stdin -> requests, seconds, p50 us, p99 us, errors."""
    rows = list(csv.DictReader(sys.stdin))
    t = sorted(float(r["response-time"]) for r in rows)
    wall = max(float(r["offset"]) + float(r["response-time"]) for r in rows)
    bad = sum(r["status-code"] != "200" for r in rows)
    print(len(t), wall, int(t[len(t) // 2] * 1e6), int(t[int(len(t) * .99)] * 1e6), bad)


def cells(path):
    """Rows by (load, body) and target, both in the order of the file."""
    cell = collections.defaultdict(list)
    for r in csv.DictReader(open(path)):
        cell[(r["load"], r["body"]), r["target"]].append(r)
    return cell, list(dict.fromkeys(k for k, _ in cell)), list(dict.fromkeys(t for _, t in cell))


def quiet(rows, max_noise):
    """The undisturbed rounds, or all rounds if none was undisturbed."""
    return [r for r in rows if float(r["noise"]) <= float(max_noise)] or rows


def cpu_us(r):
    return 1e6 * float(r["cpu_s"]) / int(r["requests"])


def report(path, facts, max_noise="0.10"):
    """Medians over the undisturbed rounds of a cell."""
    cell, order, names = cells(path)
    med = lambda rows, f: st.median(f(r) for r in rows)
    print("\n| load | body | target | CPU us / request | req/s | p50 ms | p99 ms | errors | rounds used | other load |\n|-|-|-|-|-|-|-|-|-|-|")
    for k in order:
        for n in names:
            every = cell.get((k, n), [])
            rows = quiet(every, max_noise)
            if rows:
                cpu = [cpu_us(r) for r in rows]
                print(f"| {k[0]} | {k[1]} | {n} | {st.median(cpu):.1f} ({min(cpu):.1f}-{max(cpu):.1f}) | {med(rows, lambda r: int(r['requests']) / float(r['seconds'])):.0f} | "
                      f"{med(rows, lambda r: float(r['p50_us'])) / 1e3:.2f} | {med(rows, lambda r: float(r['p99_us'])) / 1e3:.2f} | "
                      f"{sum(int(r['errors']) for r in every)} | {len(rows)}/{len(every)} | {max(float(r['noise']) for r in rows):.0%} |")
    print("\n| target | idle RSS MiB | peak RSS MiB | RSS after MiB | binary MiB | start-up ms |\n|-|-|-|-|-|-|")
    for line in open(facts):
        print("| " + " | ".join(line.rstrip("\n").split(",")) + " |")


def ratios(path, ours, floor, max_noise="0.10"):
    """CPU per request of every target, and the ratio of ours to the floor."""
    cell, order, names = cells(path)
    print(f"\n| load | body | {' | '.join(f'{n}, us' for n in names)} | {ours} / {floor} |\n|-|-|{'-|' * len(names)}-|")
    for k in order:
        cost = {n: st.median(cpu_us(r) for r in quiet(cell[k, n], max_noise)) for n in names if cell.get((k, n))}
        ratio = f"{cost[ours] / cost[floor]:.2f}" if ours in cost and cost.get(floor) else "-"
        print(f"| {k[0]} | {k[1]} | {' | '.join(f'{cost[n]:.1f}' if n in cost else '-' for n in names)} | {ratio} |")


if __name__ == "__main__":
    {"check": check, "startup": startup, "hey": hey, "report": report, "ratios": ratios}[sys.argv[1]](*sys.argv[2:])
