#!/bin/sh
# As clusterb.sh, with encryption. usage: clusterb-encrypted.sh ADDRESS-OF-THE-FIRST-HOST SECRET-FILE
set -eux
docker run --detach --name app-ambassador \
    --volume "$(realpath "$2"):/run/secrets/peer:ro" \
    --expose 5000 "${AMBASSADOR_IMAGE:-ambassador}" \
    --peer-secret-file /run/secrets/peer "5000=peer://$1/helloapp"
docker run --detach --name web \
    --link app-ambassador:helloapp \
    --publish-all carinamarina/hello-world-web
docker port web
