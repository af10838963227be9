#!/usr/bin/env python3
"""Prints ports that are free: free_ports.py NUMBER

They are below those that the system gives to whoever asks for any, so that nobody is given one while its service is stopped."""

import random
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count):
    first_given = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32768
    with ExitStack() as bound:
        ports = []
        while len(ports) < count:
            one, port = bound.enter_context(socket.socket()), random.randrange(first_given // 2, first_given)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports


if __name__ == "__main__":
    print(*free_ports(int(sys.argv[1])))
