#!/bin/sh
# On either host: takes away what the other scripts started.
docker rm -f redis redis_ambassador app_redis
docker network rm app
