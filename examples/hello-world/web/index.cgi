#!/bin/sh
# Asks the linked container: by the link's variables where Docker sets them, by the link's alias where not.
address=${HELLOAPP_PORT_5000_TCP_ADDR:-helloapp}:${HELLOAPP_PORT_5000_TCP_PORT:-5000}
answer=$(wget -qO- "http://$address/")
printf 'Content-Type: text/plain\r\n\r\n'
printf 'The linked container says ... "%s"\n' "$answer"
