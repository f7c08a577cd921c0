#!/bin/bash
# Publishes to CloudWatch what the group is scaled by: the share of datagrams that the kernel dropped since the last time,
# and how many calls wait for the collector. Run every minute.
set -euo pipefail
. /etc/vxsniff/deploy.conf
export AWS_DEFAULT_REGION
readonly METRICS=http://127.0.0.1:9478/metrics
readonly STATE=${RUNTIME_DIRECTORY:-/run/vxsniff-publish}/counts

read -r frames dropped waiting < <(curl -sf "$METRICS" | awk '
    $1 == "vxsniff_frames_total" { frames = $2 }
    $1 == "vxsniff_kernel_dropped_total" { dropped = $2 }
    /^vxsniff_deliveries_open\{/ { waiting += $NF }
    END { if (!NR) exit 1; printf "%.0f %.0f %.0f\n", frames, dropped, waiting }')
frames_before=0 dropped_before=0
[ ! -e "$STATE" ] || read -r frames_before dropped_before <"$STATE"
mkdir -p "${STATE%/*}"
echo "$frames $dropped" >"$STATE"
if ((frames < frames_before || dropped < dropped_before)); then # vxsniff was started anew
    frames_before=0 dropped_before=0
fi
loss=$(awk -v d=$((dropped - dropped_before)) -v f=$((frames - frames_before)) \
    'BEGIN { printf "%.4f", d + f ? 100 * d / (d + f) : 0 }')
for metric in "ReceiveLossPercent Percent $loss" "CallsWaiting Count $waiting"; do
    read -r name unit value <<<"$metric"
    aws cloudwatch put-metric-data --namespace "$METRICS_NAMESPACE" --metric-name "$name" --unit "$unit" \
        --value "$value" --dimensions "AutoScalingGroupName=$GROUP_NAME"
done
