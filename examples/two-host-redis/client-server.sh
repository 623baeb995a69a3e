#!/bin/sh
# On the other host: an ambassador that is told where the first one is. usage: client-server.sh ADDRESS-OF-BIG-SERVER
set -eux
docker run -d --name redis_ambassador --expose 6379 \
    -e "REDIS_PORT_6379_TCP=tcp://$1:6379" "${AMBASSADOR_IMAGE:-ambassador}"
