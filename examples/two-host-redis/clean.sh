#!/bin/sh
# On either host: takes away what the other scripts started there.
docker ps -aq --filter 'name=^/?(redis|redis_ambassador|app_redis)$' | xargs -r docker rm -f
docker network ls -q --filter 'name=^app$' | xargs -r docker network rm
