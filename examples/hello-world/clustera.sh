#!/bin/sh
# On the first host: the app, and an ambassador that is linked to it and published. It reads its links from Docker's
# socket, since Docker 29 sets no link variables.
set -eux
docker run --detach --name app carinamarina/hello-world-app
docker inspect --format "{{ .Config.ExposedPorts }}" app
docker run --detach --name app-ambassador \
    --link app:helloapp \
    --volume /var/run/docker.sock:/var/run/docker.sock:ro \
    --publish 5000:5000 "${AMBASSADOR_IMAGE:-ambassador}"
docker port app-ambassador
