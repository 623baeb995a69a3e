#!/bin/sh
# On the first host: the app, and an ambassador that is linked to it and published.
set -eux
docker run --detach --name app carinamarina/hello-world-app
docker inspect --format "{{ .Config.ExposedPorts }}" app
docker run --detach --name app-ambassador \
    --link app:helloapp \
    --publish 5000:5000 "${AMBASSADOR_IMAGE:-ambassador}"
docker port app-ambassador
