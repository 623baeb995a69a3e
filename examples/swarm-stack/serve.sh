#!/bin/sh
# Replies with the name of the container. After SIGTERM it accepts connections for two more seconds, until no ambassador
# uses it, and then lets open requests finish.
mkdir -p /www && hostname >/www/index.html
httpd -f -p 80 -h /www & server=$!
trap 'sleep 2; kill $server; sleep 1; exit 0' TERM
while :; do wait; done
