# The body of the user data of a mirror target on Amazon Linux 2023: installs vxsniff, as a systemd unit or a container,
# and what looks after it. The variables above it come from the template. Written to be run again after it failed.
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

# Tells the stack that waits for this instance how it went; a stack that does not wait has no SIGNAL_RESOURCE.
signal() {
    [ -n "${SIGNAL_RESOURCE:-}" ] || return 0
    aws cloudformation signal-resource --stack-name "$STACK_NAME" --logical-resource-id "$SIGNAL_RESOURCE" \
        --unique-id "$(metadata instance-id)" --status "$1"
}

put() { # put FILE MODE: standard input becomes the file
    install -D -m "$2" /dev/stdin "$1"
}

write_files() {
# @files
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

# Up is when it says so itself.
for _ in $(seq 60); do
    if curl -sf -o /dev/null http://127.0.0.1:9478/healthz; then
        signal SUCCESS
        exit 0
    fi
    sleep 1
done
echo 'vxsniff does not answer on http://127.0.0.1:9478/healthz after a minute: journalctl -u vxsniff tells why' >&2
false
