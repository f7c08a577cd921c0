#!/bin/bash
# Brings the settings from Parameter Store and Secrets Manager to /etc/vxsniff, and has vxsniff read them anew when they
# changed. Run at the start and every minute. When something can't be had, what is there stays.
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

# `eni-0123:101` in the list of VNIs is a source and its session's VNI: the VNI is what vxsniff wants.
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
