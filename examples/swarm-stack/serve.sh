#!/bin/sh
# Says which container it is. When it is stopped it serves on for a moment, as a good backend does: who was sent here
# before the news of the stop got round is still served.
mkdir -p /www && hostname >/www/index.html
httpd -f -p 80 -h /www & server=$!
trap 'sleep 2; kill $server; exit 0' TERM
while :; do wait; done
