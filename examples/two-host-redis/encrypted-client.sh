#!/bin/sh
# As client-server.sh, with encryption. usage: encrypted-client.sh ADDRESS-OF-BIG-SERVER SECRET-FILE
set -eux
docker run -d --name redis_ambassador --expose 6379 \
    -v "$(realpath "$2"):/run/secrets/peer:ro" \
    "${AMBASSADOR_IMAGE:-ambassador}" --peer-secret-file /run/secrets/peer "6379=peer://$1/redis"
