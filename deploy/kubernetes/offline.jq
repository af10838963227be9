# Makes a Job that runs one command of the gateway as its Deployment would: with the same image, settings, secrets and volumes,
# and without ports and probes. docs/RUNBOOK.md says how, and when the Deployment must be scaled to 0 first.
#
#   kubectl get deployment/countersign -o json | jq -f offline.jq --args -- keys rewrap --store '$(COUNTERSIGN_STORE)' | kubectl create -f -
{
  apiVersion: "batch/v1",
  kind: "Job",
  metadata: { generateName: "countersign-offline-", namespace: .metadata.namespace },
  spec: {
    # What failed is looked at first, and not tried again.
    backoffLimit: 0,
    ttlSecondsAfterFinished: 86400,
    template: {
      # No label of the gateway: its services would send callers here, and its network policy counts by label.
      metadata: { labels: { "countersign.dev/offline": "true" } },
      spec: (
        .spec.template.spec
        | .restartPolicy = "Never"
        | del(.topologySpreadConstraints)
        | .containers[0] |= (del(.ports, .startupProbe, .livenessProbe, .readinessProbe, .lifecycle) | .args = $ARGS.positional)
      )
    }
  }
}
