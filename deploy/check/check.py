"""Checks what deploys the gateway against the gateway: every setting that a manifest names must be one of the program, and
the program must find the whole sound, files included. Rendered manifests must fit the API's schemas, and keep to what the
gateway needs: no rights, one process for each SQLite file, time to drain."""

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import started
import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ["dev", "single", "staging", "prod"]
# The oldest that has what the manifests use, and one of today.
KUBERNETES = ["1.30", "1.34"]
# Kinds of the Prometheus operator, which are in no schema of Kubernetes itself.
WITHOUT_SCHEMA = {"PrometheusRule", "ServiceMonitor"}
# How long the gateway takes to drain.
SECRETS_SOURCE = (ROOT / "host/server/src/config/secrets.rs").read_text()
RUN = (ROOT / "host/server/src/run.rs").read_text()
DRAINS = re.findall(r"^(?:pub.* )?const (?:DRAIN|BACKGROUND): .*from_secs\((\d+)\)", RUN, re.M)
assert len(DRAINS) == 2, DRAINS
DRAIN_SECONDS = sum(map(int, DRAINS))
SECRETS = {
    "COUNTERSIGN_SECRET": "5e" * 32,
    "SLACK_SIGNING_SECRET": "0123456789abcdef",
    "SLACK_BOT_TOKEN": "xoxb-check",
}

problems = []


def expect(holds, problem):
    if not holds:
        problems.append(problem)


class Program:
    """The gateway's program."""

    def __init__(self, path):
        self.path = path
        self.help = self.run(["serve", "--help"], {}).stdout
        assert "COUNTERSIGN_STORE" in self.help, self.help

    def run(self, words, variables, folder=None, **user):
        variables = {"HOME": "/nonexistent", **variables}
        return subprocess.run([self.path, *words], env=variables, cwd=folder, capture_output=True, text=True, **user)

    def knows(self, where, variables):
        for name in variables:
            expect(re.search(rf"\b{name}\b", self.help), f"{where}: `{name}` is no setting of `countersign serve`")

    def finds_sound(self, where, variables, folder):
        checked = self.run(["check-config"], variables, folder)
        said = checked.stdout + checked.stderr
        expect(checked.returncode == 0, f"{where}: {said}")
        expect("sound: the policy set" in said or checked.returncode != 0, f"{where}: no policy set: {said}")


def render(kustomize, overlay, tree):
    words = [*kustomize.split(), str(tree / "overlays" / overlay)]
    rendered = subprocess.run(words, capture_output=True, text=True)
    if rendered.returncode != 0:
        sys.exit(f"{overlay} is not rendered: {rendered.stderr}")
    return list(yaml.safe_load_all(rendered.stdout))


def validate(where, resources):
    for resource in resources:
        if resource["kind"] in WITHOUT_SCHEMA:
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                problems.append(f"{where}: {resource['kind']} {resource['metadata']['name']} ({version}): {error.args[0]}")


def one(resources, kind):
    found = [resource for resource in resources if resource["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]


def check_pod(where, deployment):
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    security, rights = pod["securityContext"], container["securityContext"]
    expect(pod["automountServiceAccountToken"] is False, f"{where}: the pod has a token of the API server")
    expect(security["runAsNonRoot"] and security["runAsUser"] == 65532, f"{where}: it runs as root")
    expect(security["seccompProfile"] == {"type": "RuntimeDefault"}, f"{where}: no seccomp")
    expect(rights["readOnlyRootFilesystem"] is True, f"{where}: its root can be written to")
    expect(rights["allowPrivilegeEscalation"] is False and rights["privileged"] is False, f"{where}: privileges")
    expect(rights["capabilities"] == {"drop": ["ALL"]}, f"{where}: capabilities")
    probes = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ["liveness", "readiness", "startup"]}
    expect(probes["liveness"]["path"] == "/healthz", f"{where}: a store that is away would restart it")
    expect(probes["readiness"]["path"] == "/readyz", f"{where}: the readiness probe")
    waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    expect(
        pod["terminationGracePeriodSeconds"] >= waits + DRAIN_SECONDS + 5, f"{where}: it is killed before it has drained"
    )
    expect(container["resources"]["limits"]["memory"], f"{where}: no limit of memory")


def check_replicas(where, resources, store):
    spec = one(resources, "Deployment")["spec"]
    kinds = {resource["kind"] for resource in resources}
    if store.startswith("redis"):
        strategy = spec["strategy"]
        expect(strategy["type"] == "RollingUpdate", f"{where}: {strategy}")
        expect(strategy["rollingUpdate"]["maxUnavailable"] == 0, f"{where}: a roll-out takes one away first")
        expect("replicas" not in spec, f"{where}: `replicas` works against the autoscaler")
        expect({"HorizontalPodAutoscaler", "PodDisruptionBudget"} <= kinds, f"{where}: {kinds}")
        scaler = one(resources, "HorizontalPodAutoscaler")["spec"]
        expect(2 <= scaler["minReplicas"] <= scaler["maxReplicas"], f"{where}: {scaler}")
    else:
        expect(spec["replicas"] == 1, f"{where}: two processes would share a store that is one's")
        expect(spec["strategy"] == {"type": "Recreate"}, f"{where}: a roll-out starts a second one beside the first")
        expect("HorizontalPodAutoscaler" not in kinds, f"{where}: it would be scaled")


def check_monitoring(where, resources):
    """The rules are those of the project, and ask for the job that the ServiceMonitor makes of its service."""
    monitors = [resource for resource in resources if resource["kind"] == "ServiceMonitor"]
    rules = [resource for resource in resources if resource["kind"] == "PrometheusRule"]
    if not monitors and not rules:
        return
    [monitor], [rules] = monitors, rules
    text = (ROOT / "deploy/monitoring/alerts.yaml").read_text()
    made = "run deploy/monitoring/kubernetes.sh"
    expect(rules["spec"] == yaml.safe_load(text), f"{where}: its alert rules are not those of alerts.yaml: {made}")
    asked = set(re.findall(r'\bjob="([^"$]+)"', text))
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    services = [r for r in resources if r["kind"] == "Service" and selected <= r["metadata"].get("labels", {}).items()]
    expect(len(services) == 1, f"{where}: the ServiceMonitor selects {len(services)} services")
    for service in services:
        name, labels = service["metadata"]["name"], service["metadata"]["labels"]
        job = labels.get(monitor["spec"].get("jobLabel"), name)
        expect({job} == asked, f"{where}: the job is called `{job}`, and the alert rules ask for {asked}")
        ports = {port["name"] for port in service["spec"]["ports"]}
        scraped = {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
        expect(scraped <= ports, f"{where}: {scraped} is scraped, and the service has {ports}")
    page = (ROOT / "docs/METRICS.md").read_text()
    expect(set(re.findall(r"job_name: (\S+)", page)) == asked, "docs/METRICS.md: another job than in the alert rules")


def check_offline(where, deployment, program):
    """The Job for one command has all that the pod has, and nobody is sent to it."""
    words = ["keys", "rewrap", "--store", "$(COUNTERSIGN_STORE)"]
    asks = ["jq", "-f", str(ROOT / "deploy/kubernetes/offline.jq"), "--args", "--", *words]
    made = subprocess.run(asks, input=json.dumps(deployment), capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    job = json.loads(made.stdout)
    job["metadata"]["name"] = job["metadata"].pop("generateName") + "1"
    validate(where, [job])
    expect(job["metadata"]["namespace"] == deployment["metadata"]["namespace"], f"{where}: the Job is somewhere else")
    template = job["spec"]["template"]
    gateway = deployment["spec"]["template"]
    expect(not template["metadata"]["labels"].items() & gateway["metadata"]["labels"].items(), f"{where}: services send to the Job")
    [container], [of_gateway] = template["spec"]["containers"], gateway["spec"]["containers"]
    for name in ["image", "env", "envFrom", "volumeMounts", "securityContext", "resources"]:
        expect(container.get(name) == of_gateway.get(name), f"{where}: the Job has another `{name}`")
    for name in ["volumes", "securityContext", "serviceAccountName", "automountServiceAccountToken"]:
        expect(template["spec"].get(name) == gateway["spec"].get(name), f"{where}: the Job has another `{name}`")
    expect(container["args"] == words, f"{where}: the Job runs {container['args']}")
    expect(not [name for name in container if name.endswith("Probe")], f"{where}: the Job is probed")
    helped = program.run(["keys", "rewrap", "--help"], {})
    expect(helped.returncode == 0 and "--store" in helped.stdout, f"{where}: no `keys rewrap --store`")


def mount(pod, resources, program, target):
    """Makes the volumes of a pod as Kubernetes does: a folder's files are links into one that is replaced as a whole."""
    maps = {resource["metadata"]["name"]: resource for resource in resources if resource["kind"] == "ConfigMap"}
    places = {}
    [container] = pod["containers"]
    for volume in pod["volumes"]:
        [at] = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == volume["name"]]
        folder = target / at.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        places[at] = folder
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        for source in sources:
            if "configMap" in source:
                fill(folder, maps[source["configMap"]["name"]], source["configMap"].get("items"))
            elif "secret" in source:
                [item] = source["secret"]["items"]
                made = program.run(["receipt", "rotate-keys", "--receipt-keys", str(folder / item["path"])], {})
                assert made.returncode == 0, made.stderr
    return places


def fill(folder, config_map, items):
    contents = {name: text.encode() for name, text in config_map.get("data", {}).items()}
    contents |= {name: base64.b64decode(text) for name, text in config_map.get("binaryData", {}).items()}
    size = sum(map(len, contents.values()))
    expect(size < 1 << 20, f"ConfigMap {config_map['metadata']['name']} has {size} bytes, and may have 1 MiB")
    data = folder / "..2026_01_01"
    data.mkdir(exist_ok=True)
    link = folder / "..data"
    if not link.is_symlink():
        link.symlink_to(data.name)
    for item in items or [{"key": name, "path": name} for name in contents]:
        path = data / item["path"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents[item["key"]])
        top = folder / Path(item["path"]).parts[0]
        if not top.is_symlink():
            top.symlink_to(Path("..data") / top.name)


def moved(variables, places):
    """The settings, with each path that begins with a place of `places` moved to where that is here."""

    def move(value):
        for at in sorted(places, key=len, reverse=True):
            value = re.sub(rf"(^|:){re.escape(at)}(?=/|$)", lambda found, at=at: found[1] + str(places[at]), value)
        return value

    return {name: move(value) for name, value in variables.items()}


def check_kubernetes(program, kustomize, policies, work):
    tree = work / "kubernetes"
    shutil.copytree(ROOT / "deploy/kubernetes", tree)
    for name in ["policy-set.yaml", "modules", "schemas"]:
        source, target = policies / name, tree / "policies" / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    for overlay in OVERLAYS:
        where = f"deploy/kubernetes/overlays/{overlay}"
        resources = render(kustomize, overlay, tree)
        validate(where, resources)
        deployment = one(resources, "Deployment")
        check_pod(where, deployment)
        pod = deployment["spec"]["template"]["spec"]
        [container] = pod["containers"]
        names = [source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source]
        settings = next(r["data"] for r in resources if r["kind"] == "ConfigMap" and r["metadata"]["name"] in names)
        program.knows(where, settings)
        check_replicas(where, resources, settings["COUNTERSIGN_STORE"])
        check_monitoring(where, resources)
        check_offline(where, deployment, program)
        ports = {port["containerPort"] for port in container["ports"]}
        listens = {int(v.rsplit(":", 1)[1]) for name, v in settings.items() if name.endswith("LISTEN")}
        expect(ports == listens, f"{where}: it listens on {listens}, and has the ports {ports}")
        secrets = {} if overlay == "dev" else SECRETS
        target = work / overlay
        variables = moved({**settings, **secrets}, mount(pod, resources, program, target))
        program.finds_sound(where, variables, target)
        print(f"  {overlay}: {len(resources)} resources, settings and files sound")


def check_compose(program, policies, work):
    where = "deploy/compose.yaml"
    services = yaml.safe_load((ROOT / where).read_text())["services"]
    gateway = services["countersign"]
    expect(gateway["read_only"] is True and gateway["cap_drop"] == ["ALL"], f"{where}: rights")
    expect(re.match(r"^\d+s$", gateway["stop_grace_period"]), f"{where}: no `stop_grace_period`")
    expect(int(gateway["stop_grace_period"][:-1]) > DRAIN_SECONDS, f"{where}: it is killed before it has drained")
    variables = gateway["environment"]
    literal = {name: value for name, value in variables.items() if value and not value.startswith("${")}
    program.knows(where, variables)
    # The list of the gateway itself: constants, and names in quotes.
    names = re.search(r"const NAMES: .*? = \[(.*?)\];", SECRETS_SOURCE, re.S)[1]
    constants = dict(re.findall(r'const ([A-Z_]+): &str = "([A-Z_]+)";', SECRETS_SOURCE))
    secrets = {constants.get(name, name) for name in re.findall(r"[A-Z_]+", names)}
    assert len(secrets) >= 10, secrets
    expect(secrets <= set(variables), f"{where}: these secrets do not reach the gateway: {secrets - set(variables)}")
    published = {port.rsplit(":", 1)[1]: port for port in gateway["ports"]}
    for name in ["COUNTERSIGN_LISTEN", "COUNTERSIGN_OPS_LISTEN"]:
        host, port = literal[name].rsplit(":", 1)
        expect(host == "0.0.0.0" and port in published, f"{where}: nobody outside of the container reaches {name}")
    expect(all(port.startswith("127.0.0.1:") for port in published.values()), f"{where}: other machines reach {published}")
    target = work / "compose"
    target.mkdir()
    shutil.copy(ROOT / "deploy/compose/access.yaml", target)
    shutil.copytree(policies, target / "policies")
    places = {"/etc/countersign/access.yaml": target / "access.yaml", "/etc/countersign/policies": target / "policies"}
    places["/var/lib/countersign"] = target
    places["/var/cache/countersign"] = target / "cache"
    (target / "cache").mkdir()
    made = program.run(["receipt", "rotate-keys", "--receipt-keys", str(target / "receipts.key")], {})
    assert made.returncode == 0, made.stderr
    variables = moved({**literal, **SECRETS}, places)
    program.finds_sound(where, variables, target)
    print("  compose: settings and files sound")
    if problems:
        return
    decided = started.check(program, services["redis"], gateway, variables, target)
    print(f"  compose: both services started, stopped and started; the request is still {decided}")


def check_service(program, policies, work):
    where = "deploy/package/countersign.env"
    lines = [line for line in (ROOT / where).read_text().splitlines() if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines)
    program.knows(where, variables)
    target = work / "service"
    target.mkdir()
    shutil.copytree(policies, target / "policies")
    (target / "cache").mkdir()
    places = {"/etc/countersign": target, "/var/lib/countersign": target, "/var/cache/countersign": target / "cache"}
    program.finds_sound(where, moved(variables, places), target)
    print("  service: settings sound")
    check_unit()
    check_private_files(program, moved(variables, places), target)


def check_unit():
    """A user that files can be given to, and that the documents name; the unit's paths belong to it."""
    where = "deploy/package/countersign.service"
    unit = (ROOT / where).read_text()
    [made] = re.findall(r"^u (\S+) ", (ROOT / "deploy/package/countersign.sysusers").read_text(), re.M)
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and line[:1].isupper())
    expect("DynamicUser" not in settings, f"{where}: nobody can give a file to a user that changes")
    expect((settings.get("User"), settings.get("Group")) == (made, made), f"{where}: another user than of sysusers.d")
    expect(settings.get("StateDirectory") == made and settings.get("ProtectSystem") == "strict", f"{where}: its sandbox")
    expect("\n#ReadWritePaths=/" in unit, f"{where}: no `ReadWritePaths`")
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "deploy/package/INSTALL.md"]:
        for user in re.findall(r"(?:\binstall\b[^\n`]* -g |\brunuser -u |--uid=|\bchgrp |\broot:)([a-z][a-z-]*)", page.read_text()):
            expect(user == made, f"{page.name}: the user `{user}`, and the gateway is `{made}`")


def check_private_files(program, variables, folder):
    """What INSTALL.md says of the files of root: the gateway's user reads them, with the mode that is named there."""
    user = 64533
    if os.geteuid() != 0:
        print("  service: not root, so what another user reads is not checked")
        return
    # Where that user reaches it all; the program, too.
    for at in [folder, folder.parent]:
        at.chmod(0o711)
    theirs = Program(shutil.copy(program.path, folder / "countersign"))
    private = folder / "private"
    private.mkdir()
    (private / "webhook").write_text("whsec_" + base64.b64encode(bytes(32)).decode())
    (private / "registry").write_text('{"auths": {}}')
    key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=check"]
    key += ["-keyout", str(private / "tls.key"), "-out", str(private / "tls.pem")]
    subprocess.run(key, check=True, capture_output=True)
    made = program.run(["receipt", "rotate-keys", "--receipt-keys", str(private / "receipts.key")], {})
    assert made.returncode == 0, made.stderr
    digest = re.search(r"sha256: [0-9a-f]+", program.run(["access", "key", "check"], {}).stdout)[0]
    (private / "access.yaml").write_text(
        f"version: 1\ncallers:\n  check:\n    keys: [{{ {digest} }}]\n    requester: asserted\n    actions: ['*']\n"
        "webhooks:\n  lake: { url: https://lake.acme.example/, secret_file: webhook }\n"
    )
    page = (ROOT / "deploy/package/INSTALL.md").read_text()
    [mode] = re.findall(r"`root:countersign`, mode (\d+)", page)
    for path in private.iterdir():
        os.chown(path, 0, user)
        path.chmod(int(mode, 8))
    variables = variables | {
        "COUNTERSIGN_ACCESS": str(private / "access.yaml"),
        "COUNTERSIGN_RECEIPT_KEYS": str(private / "receipts.key"),
        "COUNTERSIGN_REGISTRY_AUTH_FILE": str(private / "registry"),
        "TLS_CERT_FILE": str(private / "tls.pem"),
        "TLS_KEY_FILE": str(private / "tls.key"),
    }
    # Where everybody can write, so that what fails is that they cannot read.
    data = folder / "data"
    data.mkdir()
    data.chmod(0o777)
    variables["COUNTERSIGN_STORE"] = f"sqlite:{data}/countersign.db"
    as_them = theirs.run(["check-config"], variables, folder, user=user, group=user, extra_groups=[])
    expect(as_them.returncode == 0, f"deploy/package/INSTALL.md: the gateway cannot read its files: {as_them.stderr}")
    as_others = theirs.run(["check-config"], variables, folder, user=user + 1, group=user + 1, extra_groups=[])
    expect(as_others.returncode != 0, "deploy/package/INSTALL.md: others can read the files of the gateway")
    data.chmod(0o755)
    closed = theirs.run(["check-config"], variables, folder, user=user, group=user, extra_groups=[])
    said = f"cannot write to `{data}`" in closed.stderr
    expect(closed.returncode == 2 and said, f"check-config: a folder that the gateway cannot write to: {closed.stderr}")
    print("  service: private files are read by the gateway's user, and by nobody else")


def check_image(program):
    text = (ROOT / "Dockerfile").read_text()
    final = text[text.rindex("\nFROM ") :]
    program.knows("Dockerfile", re.findall(r"\b(COUNTERSIGN_[A-Z_]+)=", final))
    expect(re.search(r"^USER 65532:65532$", final, re.M), "Dockerfile: no uid in numbers")
    for instruction in ["STOPSIGNAL SIGTERM", 'ENTRYPOINT ["', 'CMD ["', "HEALTHCHECK ", "VOLUME "]:
        expect(f"\n{instruction}" in final, f"Dockerfile: no `{instruction}`")
    expect("\nRUN " not in final, "Dockerfile: the last stage runs something, and has no shell to do it")
    bases = dict(line.split("=", 1) for line in (ROOT / "deploy/image/bases.env").read_text().splitlines() if line[:1] not in "#")
    for name, image in bases.items():
        expect(f"ARG {name}={image.split('@')[0]}\n" in text, f"Dockerfile: `{name}` is not the image of bases.env")
    print("  image: settings known")


def check_pipelines(program):
    """What pipelines include: each input is used and documented, and the program has what they call."""
    action = yaml.safe_load((ROOT / "deploy/github-action/action.yml").read_text())
    spec, job = yaml.safe_load_all((ROOT / "deploy/gitlab-component/template.yml").read_text())
    scripts = "".join(step["run"] for step in action["runs"]["steps"])
    (of_job,) = job.values()
    for where, inputs, used, document in [
        ("the action", action["inputs"], r"\$\{\{ inputs\.([a-z0-9-]+) \}\}", "GITHUB.md"),
        ("the component", spec["spec"]["inputs"], r"\$\[\[ inputs\.([a-z0-9-]+) \]\]", "GITLAB.md"),
    ]:
        text = str(action["runs"]) if where == "the action" else str(job)
        expect(set(re.findall(used, text)) == set(inputs), f"{where}: inputs are declared or used alone")
        shown = (ROOT / "docs" / document).read_text()
        for name in inputs:
            expect(f"`{name}`" in shown, f"docs/{document}: no input `{name}`")
        for name, about in inputs.items():
            expect(about.get("description"), f"{where}: `{name}` has no description")
    # An expression in a script would be replaced by what others may have written.
    expect("${{" not in scripts, "the action: an expression in a script")
    expect("$[[" not in "".join(of_job["script"]), "the component: an input in a script")
    asks = program.run(["ask", "--help"], {}).stdout
    for flag in set(re.findall(r"(--[a-z-]+)", "".join(re.findall(r"(?:words\+=|set --).*", scripts + "".join(of_job["script"]))))):
        expect(flag in asks or flag in ["--noprofile", "--norc"], f"pipelines: `{flag}` is no flag of `countersign ask`")
    print("  action and component: inputs documented, flags known")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ["--program", "--policies", "--kustomize"]:
        arguments.add_argument(name, required=True)
    given = arguments.parse_args()
    program, policies = Program(given.program), Path(given.policies)
    print("settings, manifests and files")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        check_image(program)
        check_pipelines(program)
        check_service(program, policies, work)
        check_compose(program, policies, work)
        check_kubernetes(program, given.kustomize, policies, work)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
