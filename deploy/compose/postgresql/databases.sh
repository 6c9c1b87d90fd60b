#!/bin/bash
# Makes a role and a database for each service, which nobody else may enter. The image runs it once,
# when its volume is empty.
set -euo pipefail

for service in credits generation webhook; do
	# The password by standard input: arguments are seen by every process.
	psql --username postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<-SQL
		CREATE ROLE $service LOGIN PASSWORD '$(cat "${SECRETS:-/run/secrets}/${service}_database_password")';
		CREATE DATABASE $service OWNER $service ENCODING 'UTF8' TEMPLATE template0;
		REVOKE ALL ON DATABASE $service FROM PUBLIC;
	SQL
done
psql --username postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
	--command 'REVOKE ALL ON DATABASE postgres FROM PUBLIC'
