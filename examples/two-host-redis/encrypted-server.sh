#!/bin/sh
# As big-server.sh, with encryption: the ambassador offers Redis to ambassadors that have the same secret.
# usage: encrypted-server.sh SECRET-FILE
set -eux
docker run -d --name redis "${REDIS_IMAGE:-redis}"
docker run -d --link redis:redis --name redis_ambassador -p 15008:15008 \
    -v "$(realpath "$1"):/run/secrets/peer:ro" \
    "${AMBASSADOR_IMAGE:-ambassador}" --peer-secret-file /run/secrets/peer peer:redis=redis:6379
