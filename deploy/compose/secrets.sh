#!/bin/sh
# Writes what must be secret to ./secrets, and leaves what is there already as it is.
#
# REPLICATE_API_TOKEN and REPLICATE_WEBHOOK_SECRET are taken from the environment; without them the
# token is the simulator's. Alertmanager's are made empty-handed: put your own in their place.
set -eu
cd "$(dirname "$0")"

# Containers see the files as they are here, and are not this user: so the folder is closed instead.
umask 022
mkdir -p secrets
chmod 0700 secrets

write() { # name, content
	test -e "secrets/$1" || printf '%s\n' "$2" >"secrets/$1"
}
hexadecimal() {
	od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}
key() {
	head -c 32 /dev/urandom | base64 | tr -d '\n'
}

write postgresql_password "$(hexadecimal)"
for service in credits generation webhook; do
	write "${service}_database_password" "$(hexadecimal)"
	password=$(cat "secrets/${service}_database_password")
	write "${service}_database_url" "postgresql://$service:$password@postgresql:5432/$service"
done
write callback_keys "$(key)"
write session_keys "$(key)"
write provider_token "${REPLICATE_API_TOKEN:-r8_simulator}"
write webhook_secrets "${REPLICATE_WEBHOOK_SECRET:-whsec_$(key)}"
for name in grafana_password heartbeat_token pagerduty_routing_key; do
	write "$name" "$(hexadecimal)"
done
write slack_webhook_url "http://127.0.0.1:9/"
