set -Eeuo pipefail
umask 022
trap 'signal FAILURE' ERR

readonly LIBEXEC=/usr/local/libexec/vxsniff

token() {
    curl -sSf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' http://169.254.169.254/latest/api/token
}

metadata() {
    curl -sSf -H "X-aws-ec2-metadata-token: $(token)" "http://169.254.169.254/latest/meta-data/$1"
}

signal() {
    [ -n "${SIGNAL_RESOURCE:-}" ] || return 0
    aws cloudformation signal-resource --stack-name "$STACK_NAME" --logical-resource-id "$SIGNAL_RESOURCE" \
        --unique-id "$(metadata instance-id)" --status "$1"
}

put() { # put FILE MODE: standard input becomes the file
    install -D -m "$2" /dev/stdin "$1"
}

write_files() {
put /usr/local/libexec/vxsniff/settings 755 <<'@EOF'
#!/bin/bash
set -euo pipefail
. /etc/vxsniff/deploy.conf
export AWS_DEFAULT_REGION
readonly ETC=/etc/vxsniff

parameter() {
    aws ssm get-parameter --with-decryption --name "$1" --query Parameter.Value --output text
}

settings=$(parameter "$SETTINGS_PARAMETER")
rules=$(parameter "$RULES_PARAMETER")
if [ -n "$CAPTURE_URL_SECRET" ]; then
    url=$(aws secretsmanager get-secret-value --secret-id "$CAPTURE_URL_SECRET" --query SecretString --output text)
else
    url=$(parameter "$CAPTURE_URL_PARAMETER")
fi
case $url in
*[\'\\]* | *$'\n'*)
    echo 'the capture URL has a quote, a backslash or a line break: write it percent-encoded' >&2
    exit 1
    ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
    sed -E '/^SNIFFER_MIRROR_VNIS=/s/eni-[0-9a-f]+://g' <<<"$settings"
    echo "USAGE_LOGGERS_RULES=file://$ETC/rules.txt"
    echo "USAGE_LOGGERS_URL='$url'"
} >"$work/.env"
printf '%s\n' "$rules" >"$work/rules.txt"

changed=
for name in rules.txt .env; do
    if ! cmp -s "$work/$name" "$ETC/$name"; then
        install -m 640 -g vxsniff "$work/$name" "$ETC/$name.new"
        mv "$ETC/$name.new" "$ETC/$name"
        changed=yes
    fi
done
if [ -n "$changed" ] && systemctl is-active -q vxsniff; then
    systemctl reload vxsniff
fi
@EOF
put /usr/local/libexec/vxsniff/drain 755 <<'@EOF'
#!/bin/bash
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
@EOF
put /usr/local/libexec/vxsniff/publish 755 <<'@EOF'
#!/bin/bash
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
@EOF
put /etc/sysctl.d/60-vxsniff.conf 644 <<'@EOF'
net.core.rmem_max = 67108864
net.core.netdev_max_backlog = 10000
@EOF
put /etc/systemd/system/vxsniff.service 644 <<'@EOF'
[Unit]
Description=Record the API calls in mirrored traffic
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/opt/vxsniff/bin/vxsniff
ExecReload=/opt/vxsniff/bin/vxsniff reload
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=2
TimeoutStopSec=20
KillMode=mixed

User=vxsniff
Group=vxsniff
UMask=0077
StateDirectory=vxsniff
StateDirectoryMode=0700
RuntimeDirectory=vxsniff
RuntimeDirectoryMode=0700
WorkingDirectory=/etc/vxsniff

CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
LockPersonality=yes
MemoryDenyWriteExecute=yes
KeyringMode=private

ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateIPC=yes
PrivateMounts=yes
DevicePolicy=closed
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RemoveIPC=yes

[Install]
WantedBy=multi-user.target
@EOF
put /etc/systemd/system/vxsniff-container.service 644 <<'@EOF'
[Unit]
Description=Record the API calls in mirrored traffic (container)
After=docker.service network-online.target
Requires=docker.service
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
EnvironmentFile=/etc/vxsniff/deploy.conf
ExecStartPre=-/usr/bin/docker rm --force vxsniff
ExecStart=/usr/bin/docker run --rm --name vxsniff --network host --read-only --cap-drop ALL --security-opt no-new-privileges --volume /etc/vxsniff:/etc/vxsniff:ro --volume vxsniff-spool:/var/lib/vxsniff ${IMAGE}
ExecReload=/usr/bin/docker exec vxsniff vxsniff reload
ExecStop=/usr/bin/docker stop --time 15 vxsniff
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=2
TimeoutStopSec=20

[Install]
WantedBy=multi-user.target
@EOF
put /etc/systemd/system/vxsniff-drain.service 644 <<'@EOF'
[Unit]
Description=Let vxsniff finish before the Auto Scaling group takes this instance away
After=vxsniff.service

[Service]
ExecStart=/usr/local/libexec/vxsniff/drain
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
@EOF
put /etc/systemd/system/vxsniff-publish.service 644 <<'@EOF'
[Unit]
Description=Publish what vxsniff loses to CloudWatch

[Service]
Type=oneshot
RuntimeDirectory=vxsniff-publish
RuntimeDirectoryPreserve=yes
ExecStart=/usr/local/libexec/vxsniff/publish
@EOF
put /etc/systemd/system/vxsniff-publish.timer 644 <<'@EOF'
[Unit]
Description=Publish what vxsniff loses to CloudWatch every minute

[Timer]
OnActiveSec=1min
OnUnitActiveSec=1min

[Install]
WantedBy=timers.target
@EOF
put /etc/systemd/system/vxsniff-settings.service 644 <<'@EOF'
[Unit]
Description=Bring the settings of vxsniff up to date

[Service]
Type=oneshot
ExecStart=/usr/local/libexec/vxsniff/settings
@EOF
put /etc/systemd/system/vxsniff-settings.timer 644 <<'@EOF'
[Unit]
Description=Bring the settings of vxsniff up to date every minute

[Timer]
OnActiveSec=1min
OnUnitActiveSec=1min

[Install]
WantedBy=timers.target
@EOF
return 0
}

install_as_unit() {
    dnf install -y -q python3.11 python3.11-pip python3.11-devel gcc
    [ -x /opt/vxsniff/bin/python ] || python3.11 -m venv /opt/vxsniff
    local package=$PACKAGE
    if [[ $package == s3://* ]]; then
        package=/var/tmp/${package##*/}
        aws s3 cp --only-show-errors "$PACKAGE" "$package"
    fi
    /opt/vxsniff/bin/pip install -q --disable-pip-version-check "$package"
}

install_as_container() {
    dnf install -y -q docker
    systemctl enable --now docker
    if [[ $IMAGE == *.dkr.ecr.* ]]; then
        aws ecr get-login-password | docker login --username AWS --password-stdin "${IMAGE%%/*}"
    fi
    docker pull -q "$IMAGE"
    mv /etc/systemd/system/vxsniff-container.service /etc/systemd/system/vxsniff.service
}

id -u vxsniff >/dev/null 2>&1 || useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin vxsniff
install -d -m 750 -g vxsniff /etc/vxsniff
write_files
AWS_DEFAULT_REGION=$(metadata placement/region)
INSTANCE_ID=$(metadata instance-id)
export AWS_DEFAULT_REGION
case $RUNTIME in
systemd) VXSNIFF=/opt/vxsniff/bin/vxsniff ;;
container) VXSNIFF='docker exec vxsniff vxsniff' ;;
esac
put /etc/vxsniff/deploy.conf 644 <<EOF
AWS_DEFAULT_REGION='$AWS_DEFAULT_REGION'
INSTANCE_ID='$INSTANCE_ID'
SETTINGS_PARAMETER='$SETTINGS_PARAMETER'
RULES_PARAMETER='$RULES_PARAMETER'
CAPTURE_URL_PARAMETER='$CAPTURE_URL_PARAMETER'
CAPTURE_URL_SECRET='$CAPTURE_URL_SECRET'
GROUP_NAME='${GROUP_NAME:-}'
HOOK_NAME='${HOOK_NAME:-}'
METRICS_NAMESPACE='${METRICS_NAMESPACE:-}'
IMAGE='$IMAGE'
VXSNIFF='$VXSNIFF'
EOF
sysctl -q -e --load /etc/sysctl.d/60-vxsniff.conf
case $RUNTIME in
systemd) install_as_unit ;;
container) install_as_container ;;
esac

"$LIBEXEC/settings"
systemctl daemon-reload
systemctl enable --now vxsniff.service vxsniff-settings.timer
if [ -n "${GROUP_NAME:-}" ]; then
    systemctl enable --now vxsniff-drain.service vxsniff-publish.timer
fi

for _ in $(seq 60); do
    if curl -sf -o /dev/null http://127.0.0.1:9478/healthz; then
        signal SUCCESS
        exit 0
    fi
    sleep 1
done
echo 'vxsniff does not answer on http://127.0.0.1:9478/healthz after a minute: journalctl -u vxsniff tells why' >&2
false
