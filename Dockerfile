# A node in a container. Nothing is built here: the binary comes from
#
#     cargo build --release -p citybrain
#     docker build -t citybrain .
#
# (podman and buildah: with `--format docker`, or they leave the health check out)
# on a machine with a glibc no newer than the base image's (Debian 12's is 2.36). Nothing else is
# needed from outside: no package is installed.
#
#     docker run -d --name shili --init --group-add "$(getent group citybrain | cut -d: -f3)" \
#         -v /etc/citybrain:/etc/citybrain:ro -v shili-data:/var/lib/citybrain \
#         -p 1883:1883 -p 127.0.0.1:8080:8080 --ulimit nofile=16384 --stop-timeout 20 citybrain
#
# (The group is the one that may look into /etc/citybrain, as docs/deploying.md makes it.)
# In the config: `data = "/var/lib/citybrain"`, and `listen = "0.0.0.0:…"`, as a container has a
# network of its own; the API then needs its `tokens_file`, and `cert_file` and `key_file` unless it
# stays on loopback or inside a network of your own.
# The data must lie on a volume: the container's own layer goes with it, and `doctor` says so.
FROM debian:bookworm-slim

COPY target/release/citybrain /usr/bin/citybrain

# No name in /etc/passwd is needed, only an owner of the volume.
RUN install -d -o 10001 -g 10001 -m 0750 /var/lib/citybrain
USER 10001:10001
VOLUME /var/lib/citybrain
EXPOSE 1883 8080

# Alive, not ready: a node with a full disk serves reads, and a restart would not make room.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m \
    CMD ["citybrain", "version", "--running", "--data-dir", "/var/lib/citybrain"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["citybrain"]
CMD ["run", "--config", "/etc/citybrain/node.toml"]
