#!/bin/sh
# On the second host: an ambassador for the first, and the web application that is linked to it.
# usage: clusterb.sh ADDRESS:PORT, as `docker port app-ambassador` on the first host shows it
set -eux
docker run --detach --name app-ambassador \
    --env "HELLOAPP_PORT_5000_TCP=tcp://$1" \
    --expose 5000 "${AMBASSADOR_IMAGE:-ambassador}"
docker run --detach --name web \
    --link app-ambassador:helloapp \
    --publish-all carinamarina/hello-world-web
docker port web
