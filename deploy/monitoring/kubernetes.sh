#!/bin/sh
# Makes the rules of the Prometheus operator from alerts.yaml: deploy/monitoring/kubernetes.sh
set -eu
cd "$(dirname "$0")"
{
  cat <<'HEAD'
# Made from deploy/monitoring/alerts.yaml by deploy/monitoring/kubernetes.sh.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: countersign
spec:
HEAD
  sed -n '/^groups:/,$ { s/^./  &/; p }' alerts.yaml
} >../kubernetes/components/monitoring/prometheusrule.yaml
