"""Slices of one wrk run against tidegate, each with some costs left out, and slices of another against nginx between them.

measure.py NGINX_PORT TIDEGATE_PORT BOUND_FILE BODY CONNECTIONS ROUNDS >slices.jsonl

A line for each round: requests per second in each slice. They are counted by the bytes that loopback has carried, divided by
what a request carried in a second of each server alone. The order within a round is random (seed 1).
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

SLICE_S, SETTLE_S = 0.08, 0.01
VARIANTS = {
    "durable": b"\0\0\0\0",
    "no_validation": b"\1\0\0\0",
    "no_validation_no_checksum": b"\1\1\0\0",
    "no_sync": b"\0\0\1\0",
    "no_write": b"\0\0\0\1",
    "no_sync_no_write": b"\0\0\1\1",
    "none_of_the_four": b"\1\1\1\1",
}


def client(port, body, connections, seconds):
    environment = dict(os.environ, FIGURES_BODY=body, FIGURES_TYPE="application/x-ndjson", FIGURES_ACK="durable")
    command = f"taskset -c 1 wrk -t1 -c{connections} -d{seconds}s --timeout 60s -s scripts/figures.lua http://127.0.0.1:{port}"
    return subprocess.Popen(command.split(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def carried():
    with open("/sys/class/net/lo/statistics/rx_bytes") as counter:
        return int(counter.read())


def bytes_of_a_request(port, body, connections):
    before = carried()
    output = client(port, body, connections, 1).communicate()[0]
    return (carried() - before) / int(re.search(r'"requests":(\d+)', output)[1])


def requests_per_second(client, request_bytes):
    client.send_signal(signal.SIGCONT)
    time.sleep(SETTLE_S)
    start, before = time.perf_counter(), carried()
    time.sleep(SLICE_S)
    result = (carried() - before) / request_bytes / (time.perf_counter() - start)
    client.send_signal(signal.SIGSTOP)
    time.sleep(SETTLE_S)
    return round(result)


def main():
    nginx, tidegate, bound_file, body, connections, rounds = sys.argv[1:]
    random.seed(1)
    os.sched_setaffinity(0, {0})
    bound = open(bound_file, "r+b", buffering=0)
    weight = {port: bytes_of_a_request(port, body, connections) for port in (nginx, tidegate)}
    clients = {}
    for port in (nginx, tidegate):
        clients[port] = client(port, body, connections, 3600)
        time.sleep(0.5)
        clients[port].send_signal(signal.SIGSTOP)
    for _ in range(int(rounds)):
        line = {"nginx": requests_per_second(clients[nginx], weight[nginx])}
        for variant in random.sample(sorted(VARIANTS), len(VARIANTS)):
            os.pwrite(bound.fileno(), VARIANTS[variant], 0)
            line[variant] = requests_per_second(clients[tidegate], weight[tidegate])
        print(json.dumps(line), flush=True)
    os.pwrite(bound.fileno(), VARIANTS["durable"], 0)
    for each in clients.values():
        each.kill()


main()
