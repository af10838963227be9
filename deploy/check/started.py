"""Starts the services of deploy/compose.yaml by hand, where there is no engine: the same Redis command, and the gateway with
the same settings. A request is decided, both are stopped and started again, and the decision must still be there."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from free_ports import free_ports

PATIENCE = 60


def until(what, holds):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


class Service:
    """A process that is stopped as an engine stops it."""

    def __init__(self, command, variables, folder, log):
        self.log = open(log, "ab")
        self.process = subprocess.Popen(
            command, env={"PATH": os.environ["PATH"], **variables}, cwd=folder, stdout=self.log, stderr=self.log
        )

    def stop(self, grace):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=grace)
        self.log.close()
        return status

    def kill(self):
        self.process.kill()
        self.process.wait()


def call(url, body=None, token=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def check(program, redis_service, gateway_service, variables, folder):
    """`variables` are the gateway's, with paths that are here. Returns what the decision was."""
    redis_port, port, operations = free_ports(3)
    redis = [str(word) for word in redis_service["command"]]
    redis += ["--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder)]
    grace = int(gateway_service["stop_grace_period"][:-1])
    made = program.run(["access", "key", "check"], {}).stdout
    key = re.search(r"cs_[0-9a-f]+", made)[0]
    digest = re.search(r"sha256: [0-9a-f]+", made)[0]
    access = Path(variables["COUNTERSIGN_ACCESS"])
    access.write_text(
        f"version: 1\ncallers:\n  check:\n    keys: [{{ {digest} }}]\n    requester: asserted\n    actions: ['*']\n"
    )
    variables = variables | {
        "COUNTERSIGN_STORE": f"redis://127.0.0.1:{redis_port}",
        "COUNTERSIGN_LISTEN": f"127.0.0.1:{port}",
        "COUNTERSIGN_OPS_LISTEN": f"127.0.0.1:{operations}",
        "COUNTERSIGN_POLICY_DEADLINE_MS": "10000",
        # Nothing of this reaches Slack.
        "SLACK_API_URL": "http://127.0.0.1:9/api",
    }
    gate, log = f"http://127.0.0.1:{port}", folder / "log"

    def start():
        services = [Service(redis, {}, folder, log)]
        try:
            asks = ["redis-cli", "-p", str(redis_port), "ping"]
            until("Redis", lambda: b"PONG" in subprocess.run(asks, capture_output=True).stdout)
            services.append(Service([program.path, "serve"], variables, folder, log))

            def ready():
                assert services[1].process.poll() is None, log.read_text()
                return program.run(["health", "--ready"], variables).returncode == 0

            until("the gateway", ready)
        except BaseException:
            for service in services:
                service.kill()
            raise
        return services

    redis_process, gateway = start()
    try:
        meta = {"origin": {"repo": "acme/web"}, "requester": {"id": "U0DANA", "source": "slack"}, "justification": "check"}
        body = {"action": "deploy_staging", "params": {"service": "web", "ref": "v1"}, "meta": meta}
        status, request = call(f"{gate}/api/guard/request", body, key)
        assert status == 200, request
        words = ["dev", "click", "--url", gate, "--user", "U0ALICE", "deny", request["requestId"]]
        clicked = program.run(words, variables)
        assert clicked.returncode == 0, clicked.stdout + clicked.stderr
        assert gateway.stop(grace) == 0, log.read_text()
        assert redis_process.stop(grace) == 0, log.read_text()
        redis_process, gateway = start()
        status, after = call(f"{gate}/api/guard/wait?timeoutSec=0", token=request["token"])
        assert (status, after["status"]) == (200, "denied"), after
        assert after["receipt"], after
        return after["status"]
    finally:
        gateway.kill()
        redis_process.kill()
