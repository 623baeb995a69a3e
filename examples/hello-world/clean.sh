#!/bin/sh
# On either host: takes away what the other scripts started.
docker rm -f app app-ambassador web
