#!/bin/bash
# Waits until the Auto Scaling group wants this instance gone; then stops capturing, delivers what waits, and lets it go.
# By then the load balancer sends nothing more: the group deregisters an instance before its lifecycle hook begins.
set -euo pipefail
. /etc/vxsniff/deploy.conf
export AWS_DEFAULT_REGION
readonly METRICS=http://127.0.0.1:9478/metrics
readonly LONGEST_S=${DRAIN_LONGEST_S:-3600}

target_state() {
    local token
    token=$(curl -sSf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
    curl -sSf -H "X-aws-ec2-metadata-token: $token" \
        http://169.254.169.254/latest/meta-data/autoscaling/target-lifecycle-state
}

waiting() { # calls in memory and in the spool
    curl -sf "$METRICS" | awk '/^vxsniff_deliveries_open\{/ { sum += $NF } END { if (NR) print sum + 0; else exit 1 }'
}

hook() {
    aws autoscaling "$@" --lifecycle-hook-name "$HOOK_NAME" --auto-scaling-group-name "$GROUP_NAME" \
        --instance-id "$INSTANCE_ID"
}

until [ "$(target_state 2>/dev/null || true)" = Terminated ]; do
    sleep "${DRAIN_POLL_S:-5}"
done

echo 'this instance is to go: capturing ends, what waits is delivered'
$VXSNIFF off
for ((second = 0; second < LONGEST_S; second++)); do
    left=$(waiting) || break # it does not run: what waits is on its disk, and nobody can deliver it here
    if [ "$left" = 0 ]; then
        break
    fi
    if ((second % 30 == 0)); then
        echo "$left calls wait"
        hook record-lifecycle-action-heartbeat || true
    fi
    sleep 1
done
systemctl stop vxsniff
hook complete-lifecycle-action --lifecycle-action-result CONTINUE
