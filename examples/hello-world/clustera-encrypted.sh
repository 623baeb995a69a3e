#!/bin/sh
# As clustera.sh, with encryption: the ambassador offers the app to ambassadors that have the same secret.
# usage: clustera-encrypted.sh SECRET-FILE
set -eux
docker run --detach --name app carinamarina/hello-world-app
docker run --detach --name app-ambassador \
    --link app:helloapp \
    --volume "$(realpath "$1"):/run/secrets/peer:ro" \
    --publish 15008:15008 "${AMBASSADOR_IMAGE:-ambassador}" \
    --peer-secret-file /run/secrets/peer peer:helloapp=helloapp:5000
